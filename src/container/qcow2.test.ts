import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { runTool } from "../base/index.ts";
import { QCOW2_MAX_BYTES, writeOverlay } from "./qcow2.ts";

test("overlay: QEMU takes it for what it is to be", async (t) => {
  for (const sizeBytes of [2 ** 20, 10 * 2 ** 30, QCOW2_MAX_BYTES]) {
    const path = join(t.dir, `${sizeBytes}.qcow2`);
    await writeFile(join(t.dir, "below.raw"), Buffer.alloc(512, "x"));
    await writeOverlay({ path, sizeBytes, backingFile: "below.raw", backingFormat: "raw" });
    const commands = ["qmp_capabilities", "query-named-block-nodes", "quit"];
    const input = commands.map((execute) => `${JSON.stringify({ execute })}\n`).join("");
    const { stdout } = await runTool(
      "qemu-storage-daemon",
      [
        ...["--chardev", "stdio,id=c", "--monitor", "c", "--blockdev"],
        JSON.stringify({ driver: "qcow2", "node-name": "top", file: { driver: "file", filename: path } }),
      ],
      { input: Buffer.from(input) },
    );
    const answers = stdout.toString().trim().split("\n");
    const nodes = answers.map((line) => JSON.parse(line)["return"]).find(Array.isArray) ?? [];
    const { image } = nodes.find((node: { "node-name": string }) => node["node-name"] === "top");
    assert.equal(image["virtual-size"], sizeBytes);
    assert.equal(image["full-backing-filename"], join(t.dir, "below.raw"));
    assert.equal(image["backing-filename-format"], "raw");
    assert.equal(image["format-specific"].data.corrupt, false);
  }
});

test("overlay: sizes that it cannot have, and names that are taken", async (t) => {
  const options = { path: join(t.dir, "x"), backingFile: "below", backingFormat: "raw" } as const;
  for (const sizeBytes of [0, -512, 100, 1.5, Number.NaN, QCOW2_MAX_BYTES + 512]) {
    await assert.rejects(writeOverlay({ ...options, sizeBytes }), { reason: "INVALID_ARGUMENT" });
  }
  await writeFile(options.path, "mine");
  await assert.rejects(writeOverlay({ ...options, sizeBytes: 512 }), { code: "EEXIST" });
  assert.equal(await readFile(options.path, "utf8"), "mine");
});
