/** Every example in TypeScript that the documentation has is one that a strict compiler accepts. */
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { packageProgram, repository, runCommand } from "./command.ts";

const FENCED = /^```ts\n(.*?)^```/gms;

async function examples(): Promise<readonly (readonly [string, string])[]> {
  const below = await readdir(join(repository, "docs"), { recursive: true });
  const pages = ["README.md", ...below.filter((path) => path.endsWith(".md")).map((path) => join("docs", path))];
  const found = pages.map(async (page) => {
    const text = await readFile(join(repository, page), "utf8");
    const blocks = [...text.matchAll(FENCED)].map(([, code = ""]) => code);
    // What is no program for users, such as a test of our own, imports by path.
    return blocks.filter((code) => code.includes('from "belljar"')).map((code) => [page, code] as const);
  });
  return (await Promise.all(found)).flat();
}

test("examples in the documentation compile", async (t) => {
  const dir = await tempDir(t);
  const all = await examples();
  assert.ok(all.length > 0);
  for (const [index, [page, code]] of all.entries()) {
    await writeFile(join(dir, `example-${index}.ts`), `// ${page}\n${code}export {};\n`);
  }
  const config = {
    extends: join(repository, "tsconfig.json"),
    compilerOptions: {
      noEmit: true,
      // An example shows what there is; it need not use it.
      noUnusedLocals: false,
      paths: { belljar: [join(repository, "src/sdk/public.ts")] },
      typeRoots: [join(repository, "node_modules/@types")],
    },
    include: ["*.ts", join(repository, "src/protocol/connect-types.d.ts")],
  };
  await writeFile(join(dir, "package.json"), '{ "type": "module" }');
  await writeFile(join(dir, "tsconfig.json"), JSON.stringify(config));
  const { status, output } = await runCommand(packageProgram("tsc"), ["-p", dir], { capture: true });
  assert.equal(status, 0, output);
});
