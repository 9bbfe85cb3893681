import assert from "node:assert/strict";
import { test } from "node:test";
import { isIgnoredByInit, needsDefaultAction } from "./default-action.ts";

const status = (pids: string, caught: string, ignored: string): string =>
  `Name:\tx\nNSpid:\t${pids}\nSigIgn:\t${ignored}\nSigCgt:\t${caught}\n`;
const NONE = "0000000000000000";
/** Bit 14: SIGTERM. */
const TERM = "0000000000004000";

test("an init that neither handles nor ignores a signal needs help", () => {
  assert.equal(isIgnoredByInit(status("70\t1", NONE, NONE), 15), true);
});

test("a handler, a decision to ignore, and other processes are left to the kernel", () => {
  assert.equal(isIgnoredByInit(status("70\t1", TERM, NONE), 15), false);
  assert.equal(isIgnoredByInit(status("70\t1", NONE, TERM), 15), false);
  assert.equal(isIgnoredByInit(status("70\t12", NONE, NONE), 15), false);
  assert.equal(isIgnoredByInit(status("1", NONE, NONE), 15), false);
  assert.equal(isIgnoredByInit("", 15), false);
});

test("signals that end nothing by default, and SIGKILL, are left to the kernel", async () => {
  for (const signal of [9, 17, 18, 19, 20, 28]) assert.equal(await needsDefaultAction(process.pid, signal), false);
});
