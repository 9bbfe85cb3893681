import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import { storageBytes } from "./container-options.ts";
import { DetachKeys } from "./detach-keys.ts";
import { exitStatusOf } from "./exit-status.ts";
import { formatBytes, formatError } from "./output.ts";
import { parseBytes, parseCount, parseMebibytes, parseSignal, parseTime } from "./quantities.ts";
import { formatAge } from "./sandbox-text.ts";
import { splitTarget } from "./target.ts";

test("sizes are read as docker reads them", () => {
  assert.equal(parseBytes("512m", "-m"), 512 * 2 ** 20);
  assert.equal(parseBytes("1.5GiB", "-m"), 1.5 * 2 ** 30);
  assert.equal(parseBytes("100", "-m"), 100);
  assert.equal(parseMebibytes("1000k", "-m"), 1);
  for (const text of ["", "x", "1x", "-1m", "1 2m", "1e9", "m"]) {
    assert.throws(() => parseBytes(text, "-m"), { reason: "INVALID_ARGUMENT" }, text);
  }
});

test("how much a container can write, in our words and in docker's", () => {
  assert.equal(storageBytes({}), undefined);
  assert.equal(storageBytes({ storageOpt: ["size=1g", "size=2g"] }), 2 * 2 ** 30);
  assert.equal(storageBytes({ storageSize: "64m", storageOpt: ["size=1g"] }), 64 * 2 ** 20);
  for (const option of ["size=", "size", "inode=1", "size=x"]) {
    assert.throws(() => storageBytes({ storageOpt: [option] }), { reason: "INVALID_ARGUMENT" }, option);
  }
});

test("counts have a range", () => {
  const range = { min: 1, max: 32 };
  assert.equal(parseCount("32", "--cpus", range), 32);
  for (const text of ["0", "33", "1.5", "two", ""]) {
    assert.throws(() => parseCount(text, "--cpus", range), /--cpus .*1 to 32/, text);
  }
});

test("an error is one line: what failed, then its causes", () => {
  const cause = new Error("no space\nleft \u001b[2Jon device");
  const error = new BelljarError("DISK_FULL", "the layer could not be written", { cause });
  assert.equal(formatError(error), "the layer could not be written: no space left  [2Jon device");
});

test("exit statuses follow docker", () => {
  assert.equal(exitStatusOf(new BelljarError("COMMAND_NOT_FOUND", "x")), 127);
  assert.equal(exitStatusOf(new BelljarError("COMMAND_NOT_EXECUTABLE", "x")), 126);
  assert.equal(exitStatusOf(new BelljarError("CANCELLED", "x", { facts: { signalNumber: 2 } })), 130);
  assert.equal(exitStatusOf(new BelljarError("IMAGE_NOT_FOUND", "x")), 125);
});

test("bytes are shown in powers of 1000", () => {
  assert.equal(formatBytes(999), "999 B");
  assert.equal(formatBytes(1_500_000), "1.5 MB");
  assert.equal(formatBytes(123_456_789_000), "123 GB");
});

test("signals are read by name and number", () => {
  for (const text of ["TERM", "SIGTERM", "sigterm", "15"]) assert.equal(parseSignal(text, "-s"), 15);
  for (const text of ["", "NOSUCH", "0", "65", "-9"]) assert.throws(() => parseSignal(text, "-s"), /-s/, text);
});

test("times are RFC 3339, seconds since the epoch, or how long ago", () => {
  assert.equal(parseTime("2026-01-31T12:00:00Z", "--since", 0), Date.UTC(2026, 0, 31, 12));
  assert.equal(parseTime("1.5", "--since", 0), 1500);
  assert.equal(parseTime("10m", "--since", 1_000_000), 400_000);
  for (const text of ["", "yesterday", "10 m", "m"])
    assert.throws(() => parseTime(text, "--since", 0), /--since/, text);
  assert.equal(formatAge(0, 61_000), "1 minute ago");
  assert.equal(formatAge(0, 0), "just now");
});

test("what is no safe name is no target", () => {
  assert.deepEqual(splitTarget("web/one"), { sandboxName: "web", containerName: "one" });
  for (const text of ["", "..", "../x", "a/", "a/../b", "-x", "a b", "\0", "x".repeat(64)]) {
    assert.throws(() => splitTarget(text), { reason: "INVALID_ARGUMENT" }, text);
  }
});

test("the detach keys are found across pieces, and a lone Ctrl-P goes through", () => {
  const keys = new DetachKeys();
  assert.equal(Buffer.from(keys.take(Buffer.from("a\u0010"))).toString(), "a");
  assert.equal(Buffer.from(keys.take(Buffer.from("b\u0010\u0010"))).toString(), "\u0010b\u0010");
  assert.equal(keys.isComplete, false);
  assert.equal(Buffer.from(keys.take(Buffer.from("\u0011c"))).toString(), "");
  assert.equal(keys.isComplete, true);
});
