import assert from "node:assert/strict";
import { test } from "node:test";
import { vmmLimits } from "../../base/index.ts";
import { cleanText, lastLines, TextTail } from "./text-tail.ts";

test("nothing that a terminal would obey is left", () => {
  assert.equal(cleanText("a\u001b[31mb\u001b[0m\u0007c"), "abc");
  assert.equal(cleanText("\u001b]0;title\u0007x"), "x");
  assert.equal(cleanText("\u001b]8;;http://x\u001b\\link"), "link");
  assert.equal(cleanText("\u001bc\u009b31mx"), "31mx");
  assert.equal(cleanText("left\u202ethgir\u0000"), "leftthgir");
  assert.equal(cleanText("one\r\ntwo\rthree\n\n\nfour"), "one\ntwo\nthree\nfour");
});

test("the last lines are few, and each is short", () => {
  const lines = lastLines(Array.from({ length: 50 }, (_, n) => `line ${n}`).join("\n"));
  assert.equal(lines.length, vmmLimits.logTailLines);
  assert.equal(lines.at(-1), "line 49");
  assert.ok((lastLines("x".repeat(100_000))[0]?.length ?? 0) < 500);
});

test("a tail keeps the end and no more", () => {
  const tail = new TextTail();
  for (let n = 0; n < 40; n += 1) tail.push(Buffer.from(`${"x".repeat(4_000)}${n}\n`));
  assert.ok(tail.text().length <= vmmLimits.logTailBytes);
  assert.ok(tail.text().endsWith("39\n"));
});
