import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { checkBanned } from "./banned.ts";
import { checkCycles, checkDeadFiles } from "./graph.ts";
import { checkLayers } from "./layers.ts";
import { anchorsOf, checkLinks } from "./links.ts";
import { checkPlaces } from "./places.ts";
import { checkShape } from "./shape.ts";
import { type Finding, SourceTree } from "./source-tree.ts";
import { checkSources } from "./sources.ts";

const shown = (findings: readonly Finding[]): string[] =>
  findings.map(({ rule, path, line }) => `${rule} ${path}:${line}`);

describe("layers", () => {
  const doors = {
    "src/base/index.ts": "",
    "src/base/errors.ts": "",
    "src/images/index.ts": "",
    "src/images/inner.ts": "",
    "src/hypervisor/interface.ts": "",
    "src/hypervisor/index.ts": "",
    "src/sandbox/index.ts": "",
    "src/sdk/index.ts": "",
    "agent/main.ts": "",
    "test/support/x.ts": "",
  };
  const cases: readonly (readonly [string, string, boolean])[] = [
    ["src/sandbox/a.ts", 'import { x } from "../images/index.ts";', true],
    ["src/sandbox/a.ts", 'import { x } from "../images/inner.ts";', false],
    ["src/sandbox/a.ts", 'import { x } from "../sdk/index.ts";', false],
    ["src/sandbox/a.ts", 'export * from "../sdk/index.ts";', false],
    ["src/sandbox/a.ts", 'const x = await import("../sdk/index.ts");', false],
    ["src/sandbox/a.ts", '// import { x } from "../sdk/index.ts";', true],
    ["src/sandbox/a.ts", "const s = 'import x from \"../sdk/index.ts\"';", true],
    ["src/base/a.ts", 'import type { X } from "../sandbox/index.ts";', false],
    ["src/images/a.ts", 'import { x } from "../hypervisor/index.ts";', false],
    ["src/images/a.ts", 'import type { X } from "../hypervisor/interface.ts";', true],
    ["src/images/a.ts", 'import { x } from "../hypervisor/interface.ts";', false],
    ["src/base/a.ts", 'import type { X } from "../hypervisor/interface.ts";', false],
    ["src/images/a.ts", 'import { x } from "../../agent/main.ts";', false],
    ["src/images/a.ts", 'import { x } from "./missing.ts";', false],
    ["src/newcomer/a.ts", 'import { x } from "../base/index.ts";', false],
    ["src/images/a.ts", 'import { x } from "../../test/support/x.ts";', false],
    ["src/images/a.test.ts", 'import { x } from "../../test/support/x.ts";', true],
    ["agent/a.ts", 'import { x } from "../src/base/errors.ts";', true],
    ["agent/a.ts", 'import { x } from "../src/images/index.ts";', false],
  ];
  for (const [path, text, allowed] of cases) {
    test(`${path}: ${text} is ${allowed ? "allowed" : "refused"}`, () => {
      const findings = checkLayers(new SourceTree({ ...doors, [path]: text }));
      assert.deepEqual(shown(findings), allowed ? [] : [`layers ${path}:1`]);
    });
  }

  test("an import over several lines is found at its first", () => {
    const text = '/** x */\nimport {\n  a,\n  type B,\n} from "../sdk/index.ts";';
    assert.deepEqual(shown(checkLayers(new SourceTree({ ...doors, "src/base/a.ts": text }))), [
      "layers src/base/a.ts:2",
    ]);
  });
});

test("cycles: any length, types included; none in a diamond", () => {
  const cycle = new SourceTree({
    "src/base/a.ts": 'import "./b.ts";',
    "src/base/b.ts": 'import type { C } from "./c.ts";',
    "src/base/c.ts": 'export { a } from "./a.ts";',
    "src/base/self.ts": 'import "./self.ts";',
  });
  assert.deepEqual(shown(checkCycles(cycle)), ["cycles src/base/a.ts:0", "cycles src/base/self.ts:0"]);
  const diamond = new SourceTree({
    "src/base/a.ts": 'import "./b.ts"; import "./c.ts";',
    "src/base/b.ts": 'import "./d.ts";',
    "src/base/c.ts": 'import "./d.ts";',
    "src/base/d.ts": "",
  });
  assert.deepEqual(checkCycles(diamond), []);
});

test("dead files: what only a test reaches is dead; what a string names is not", () => {
  const tree = new SourceTree({
    "src/cli/main.ts": 'import "./used.ts"; new Worker(new URL("./worker.ts", import.meta.url));',
    "src/cli/used.ts": "",
    "src/cli/worker.ts": "",
    "src/cli/lonely.ts": "",
    "src/cli/lonely.test.ts": 'import "./lonely.ts"; import "../../test/support/x.ts";',
    "test/support/x.ts": "",
    "test/support/unused.ts": "",
  });
  assert.deepEqual(shown(checkDeadFiles(tree)), [
    "dead-files src/cli/lonely.ts:0",
    "dead-files test/support/unused.ts:0",
  ]);
});

describe("banned", () => {
  const cases: readonly (readonly [string, string, string | undefined])[] = [
    ["src/base/a.ts", "readFileSync(path);", "no-sync-calls"],
    ["src/base/a.ts", "if (existsSync(path)) f();", "no-sync-calls"],
    ["src/base/a.ts", "execFileSync(path);", "no-sync-calls"],
    ["src/base/a.ts", "await file.datasync();", undefined],
    ["agent/a.ts", "readFileSync(path);", undefined],
    ["src/base/a.ts", "const x = y as any;", "no-any"],
    ["test/a.ts", "const x: any = y;", "no-any"],
    ["src/base/a.ts", "const x = 'as any';", undefined],
    ["src/base/a.ts", "throw new Error('x');", "belljar-error-only"],
    ["agent/a.ts", "reject(new Error('x'));", "belljar-error-only"],
    ["src/base/a.test.ts", "throw new Error('x');", undefined],
    ["src/images/a.ts", 'process.env["HOME"]', "no-process-env"],
    ["src/images/a.ts", "f(process.env)", "no-process-env"],
    ["src/images/a.ts", 'process.env["PATH"]', undefined],
    ["src/cli/a.ts", 'process.env["HOME"]', undefined],
    ["src/base/a.ts", "JSON.parse(text) as Config", "no-unchecked-json"],
    ["src/base/a.ts", "JSON.parse(f(text)) as unknown", undefined],
    ["src/base/a.ts", `// ${"TO"}DO later`, "no-todo"],
    ["src/base/a.ts", 'open("/tmp/x");', "no-fixed-tmp"],
    ["src/base/a.ts", "open(`/tmp/${x}`);", "no-fixed-tmp"],
    ["src/base/a.ts", "// see /tmp/x", undefined],
  ];
  for (const [path, text, rule] of cases) {
    test(`${path}: ${text} is ${rule === undefined ? "allowed" : `refused by ${rule}`}`, () => {
      const findings = checkBanned(new SourceTree({ [path]: text }));
      assert.deepEqual(shown(findings), rule === undefined ? [] : [`${rule} ${path}:1`]);
    });
  }
});

test("shape: header, length and names", () => {
  const tree = new SourceTree({
    "src/base/good.ts": "/** Good. */\n",
    "src/base/good.test.ts": "test();\n",
    "src/base/bare.ts": "export {};\n",
    "src/base/long.ts": `/** Long. */\n${"x;\n".repeat(600)}`,
    "src/base/longish.ts": `/** Longish. */\n${"x;\n".repeat(300)}`,
    "src/utils/a.ts": "/** A. */\n",
    "src/base/helpers.ts": "/** B. */\n",
  });
  const findings = checkShape(tree);
  assert.deepEqual(shown(findings), [
    "file-header src/base/bare.ts:0",
    "file-length src/base/long.ts:0",
    "file-length src/base/longish.ts:0",
    "empty-names src/utils/a.ts:0",
    "empty-names src/base/helpers.ts:0",
  ]);
  assert.deepEqual(
    findings.map(({ severity }) => severity),
    [undefined, undefined, "warning", undefined, undefined],
  );
});

test("links: missing files and anchors are found, code is not looked at", () => {
  const tree = new SourceTree({
    "README.md": [
      "# Title",
      "[a](docs/a.md) [b](docs/a.md#the-errors-of-a) [c](#title) [d](docs/) [e](https://example.org/x)",
      "[gone](docs/b.md)",
      "[no anchor](docs/a.md#nothing)",
      "`[code](nowhere.md)`",
      "```\n[fenced](nowhere.md)\n```",
    ].join("\n"),
    "docs/a.md": "## The `errors` of A!\n[up](../README.md#title)\n[out](../../x.md)",
  });
  assert.deepEqual(shown(checkLinks(tree)), ["links README.md:3", "links README.md:4", "links docs/a.md:3"]);
});

test("links: anchors as the forges make them", () => {
  const anchors = anchorsOf('# A b\n## A b\n### `X_Y`: z\n<a id="own"></a>\n```\n# no\n```\n');
  assert.deepEqual([...anchors].toSorted(), ["a-b", "a-b-1", "own", "x_y-z"]);
});

test("sources: files, names in them and tests that a row names are there", () => {
  const tree = new SourceTree({
    "docs/reference/sources.md": [
      "The word `nowhere` outside of a table is not looked at.",
      "| `stop`: ends it | where | test | note |",
      '| `stop`: ends it | [base/a.ts] `stop` | [base/a.test.ts] "it stops", "it goes on" | the `other` one |',
      '| ends it | [base/a.ts] `start` | [base/a.test.ts] "it starts" | [base/c.ts] |',
      '| ends it | [base/gone.ts] `stop` | "no test yet" | [why](../decisions/why.md) |',
      "",
      "[base/a.ts]: ../../src/base/a.ts",
      "[base/a.test.ts]: ../../src/base/a.test.ts",
      "[base/gone.ts]: ../../src/base/gone.ts",
    ].join("\n"),
    "src/base/a.ts": "export function stop() {}",
    "src/base/a.test.ts": 'test("it stops"); test(`it goes on`);',
  });
  const line = "sources docs/reference/sources.md";
  assert.deepEqual(shown(checkSources(tree)), [`${line}:9`, `${line}:4`, `${line}:4`, `${line}:4`]);
  assert.deepEqual(checkSources(new SourceTree({})), []);
});

test("machine paths: the clone, the folder above it, the home directory", () => {
  const tree = new SourceTree({
    "a.md": "see /data/clones/belljar/src",
    "b.md": "see /data/clones/other",
    "c.md": "see /users/ann/x and /users/annette/x",
    "d.md": "see /usr/data/clones/x and /data/clones-of-mine/",
  });
  assert.deepEqual(shown(checkPlaces(tree, "/data/clones/belljar", "/users/ann")), [
    "machine-paths a.md:1",
    "machine-paths a.md:1",
    "machine-paths b.md:1",
    "machine-paths c.md:1",
  ]);
  assert.deepEqual(checkPlaces(new SourceTree({ "a.md": "/tmp/x" }), "/tmp/belljar", "/root"), []);
});
