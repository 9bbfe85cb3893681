import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "../../test/support/harness.ts";
import { identifyProcess, isAlive, isGone, parseStat, signalProcess } from "./process-identity.ts";

const stat = (name: string, state: string, threads: number): string =>
  `42 (${name}) ${state} 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 ${threads} 0 98765 1000 200`;

test("a process is its pid and its start: it is there until it has ended, and its signal reaches nobody else", async () => {
  const child = spawn("sleep", ["1000"]);
  await once(child, "spawn");
  const identity = await identifyProcess(child.pid ?? 0);
  assert.ok(identity !== undefined && (await isAlive(identity)));
  assert.equal(await isAlive({ ...identity, startTicks: identity.startTicks + 1 }), false);
  assert.equal(await signalProcess({ ...identity, bootId: "another" }, "SIGKILL"), false);
  assert.ok(await isAlive(identity));
  assert.equal(await signalProcess(identity, "SIGKILL"), true);
  await once(child, "exit");
  assert.equal(await isAlive(identity), false);
  assert.equal(await signalProcess(identity, "SIGKILL"), false);
});

test("names may hold anything; a zombie is gone when the last of its threads is", async () => {
  assert.deepEqual(parseStat(stat("a) Z (b", "S", 3)), { state: "S", startTicks: 98765, threads: 3 });
  const gone = [
    isGone(parseStat(stat("x", "S", 1))),
    isGone(parseStat(stat("x", "Z", 2))),
    isGone(parseStat(stat("x", "Z", 1))),
  ];
  assert.deepEqual(gone, [false, false, true]);
});
