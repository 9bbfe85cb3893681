/** What watchers of a sandbox are told: failures that the monitor sees, and no more than they can take. */
import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { sandboxLimits } from "../base/index.ts";
import { Events } from "./events.ts";
import type { SandboxEvent } from "./interface.ts";

const { monitorIntervalMs, monitorFailures, agentCheckTimeoutMs, eventsWaitingMax } = sandboxLimits;

async function take(events: AsyncIterable<SandboxEvent>, into: SandboxEvent[]): Promise<void> {
  for await (const event of events) into.push(event);
}

test("watch: every watcher is told once of an agent that does not answer; a paused sandbox is not looked at", async (t) => {
  const clock = new ManualClock();
  const world = await MemoryRuntime.open(t, { clock });
  const sandbox = await world.core.sandboxes.create({ image: "busybox" });
  const seen: SandboxEvent[][] = [[], []];
  const watching = seen.map((list) => take(sandbox.watch(), list));
  const failures = (): unknown[] => seen.map((list) => list.filter(({ kind }) => kind === "failed").length);
  const look = async (): Promise<void> => {
    await clock.advance(monitorIntervalMs);
    await clock.advance(agentCheckTimeoutMs);
  };
  const release = world.guests.hold("hello");
  await clock.advance(0);
  for (let count = 1; count < monitorFailures; count += 1) await look();
  assert.deepEqual(failures(), [0, 0]);
  await look();
  assert.deepEqual(failures(), [1, 1]);
  const told = seen[0]?.find((event) => event.kind === "failed");
  assert.ok(told?.kind === "failed");
  assert.equal(told.part, "agent");
  assert.match(told.message, /did not answer 3 times in a row: no answer within 5000 ms/);
  for (let count = 0; count < 4; count += 1) await look();
  assert.deepEqual(failures(), [1, 1]);
  release();

  await sandbox.pause();
  world.guests.calls.length = 0;
  for (let count = 0; count < 4; count += 1) await look();
  assert.deepEqual(failures(), [1, 1]);
  assert.deepEqual(world.guests.calls, []);
  await sandbox.delete({ force: true });
  await Promise.all(watching);
  assert.deepEqual(seen[0], seen[1]);
  assert.equal(seen[0]?.at(-1)?.kind, "deleted");
});

test("watch: a watcher that does not read loses its own oldest events, and nobody else's", async () => {
  const events = new Events(() => {});
  const [slow, quick] = [events.watch(undefined), events.watch(undefined)];
  const seen: { slow: SandboxEvent[]; quick: SandboxEvent[] } = { slow: [], quick: [] };
  const reading = take(quick, seen.quick);
  const tooMany = eventsWaitingMax + 3;
  for (let atMs = 0; atMs < tooMany; atMs += 1) {
    events.emit({ kind: "state", atMs, state: "running" });
    await new Promise(setImmediate);
  }
  events.end();
  await Promise.all([reading, take(slow, seen.slow)]);
  assert.equal(seen.quick.length, tooMany);
  assert.deepEqual(seen.slow, seen.quick.slice(3));
});
