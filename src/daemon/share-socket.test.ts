import assert from "node:assert/strict";
import { test } from "node:test";
import { findGroup } from "./share-socket.ts";

test("a group is found by its whole name", () => {
  const text = "root:x:0:\nbelljars:x:12:\nbelljar:x:990:ann,bob\nbroken\n";
  assert.equal(findGroup(text, "belljar"), 990);
  assert.equal(findGroup(text, "broken"), undefined);
  assert.equal(findGroup("", "belljar"), undefined);
});
