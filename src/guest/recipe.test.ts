import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import { findSources } from "./build-inputs.ts";
import { readRecipe } from "./recipe.ts";

test("the recipe in this repository is complete in itself", async () => {
  const recipe = await readRecipe((await findSources()).recipeDir, "x64");
  const trees = [recipe.initramfs, recipe.root, recipe.busybox, recipe.node];
  for (const file of trees.flatMap((tree) => tree.files)) {
    assert.ok(recipe.packages.includes(file.package), `${file.from} comes from ${file.package}, which is not fetched`);
  }
  for (const list of [recipe.packages, [...recipe.modules, ...recipe.modulesOnDemand], recipe.kernelArguments]) {
    assert.equal(new Set(list).size, list.length, `something is listed twice in ${list.join(" ")}`);
  }
  assert.match(recipe.digest, /^[0-9a-f]{64}$/);
});

test("an architecture that is not in the table is refused by name", async () => {
  const { recipeDir } = await findSources();
  await assert.rejects(
    readRecipe(recipeDir, "pdp11"),
    (error) => error instanceof BelljarError && error.reason === "UNSUPPORTED_HOST" && /pdp11/.test(error.message),
  );
});
