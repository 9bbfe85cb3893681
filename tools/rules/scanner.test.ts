import assert from "node:assert/strict";
import { test } from "node:test";
import { scanSource } from "./scanner.ts";

test("keeps length and lines, blanks comments, strings and regular expressions", () => {
  const source = 'const a = "x // y"; // any\nconst b = /["/*]\\//.test(a); /* b\n */ const c = a / b / 2;\n';
  const { code, strings, comments } = scanSource(source);
  assert.equal(code.length, source.length);
  assert.equal(code.split("\n").length, source.split("\n").length);
  assert.deepEqual(
    strings.map((literal) => literal.text),
    ["x // y"],
  );
  assert.deepEqual(
    comments.map((literal) => literal.text),
    ["// any", "/* b\n */"],
  );
  assert.match(code, /const c = a \/ b \/ 2;/);
  assert.doesNotMatch(code, /any|\[/);
});

test("code inside template expressions stays code, however deep", () => {
  const { code, strings } = scanSource("const t = `a ${f({ b: `c ${inner} d` })} e`; after();");
  assert.match(code, /f\(\{ b: ` {2}\$\{inner\} {2}` \}\)/);
  assert.match(code, /after\(\);/);
  assert.deepEqual(
    strings.map((literal) => literal.text),
    ["a ", "c ", " d", " e"],
  );
});

test("a quote inside a regular expression does not begin a string", () => {
  const { code } = scanSource("if (/it's/.test(x)) run(); return /'/;\nthrow y;");
  assert.match(code, /run\(\);/);
  assert.match(code, /throw y;/);
});

test("a shebang line is a comment", () => {
  assert.equal(scanSource("#!/bin/x 'y\nz").comments[0]?.text, "#!/bin/x 'y");
});
