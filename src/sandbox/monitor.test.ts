import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { Monitor, type MonitorDeps } from "./monitor.ts";

const INTERVAL_MS = 5_000;
const CHECK_TIMEOUT_MS = 1_000;

interface Sandbox {
  vmm: () => Promise<void>;
  agent: () => Promise<void>;
}

const fine = async (): Promise<void> => {};
const failing = async (): Promise<void> => {
  throw new Error("broken pipe");
};
const silent = (): Promise<void> => new Promise(() => {});

function monitored(): { sandbox: Sandbox; clock: ManualClock; told: string[]; monitor: Monitor } {
  const sandbox: Sandbox = { vmm: fine, agent: fine };
  const clock = new ManualClock();
  const told: string[] = [];
  const deps: MonitorDeps = {
    checks: { vmm: () => sandbox.vmm(), agent: () => sandbox.agent() },
    clock,
    intervalMs: INTERVAL_MS,
    checkTimeoutMs: CHECK_TIMEOUT_MS,
    failuresNeeded: 3,
    onFailure: (part, message) => told.push(`${part}: ${message}`),
  };
  return { sandbox, clock, told, monitor: new Monitor(deps) };
}

test("three looks in a row must fail; then it is told once, until the part has answered and failed again", async () => {
  const { sandbox, clock, told, monitor } = monitored();
  monitor.start();
  monitor.start();
  await clock.advance(0);
  for (const agent of [failing, failing, fine, failing, failing]) {
    sandbox.agent = agent;
    await clock.advance(INTERVAL_MS);
  }
  assert.deepEqual(told, []);
  await clock.advance(INTERVAL_MS);
  assert.deepEqual(told, ["agent: the guest's agent did not answer 3 times in a row: broken pipe"]);
  for (let look = 0; look < 5; look += 1) await clock.advance(INTERVAL_MS);
  assert.equal(told.length, 1);
  sandbox.agent = fine;
  await clock.advance(INTERVAL_MS);
  sandbox.agent = failing;
  for (let look = 0; look < 2; look += 1) await clock.advance(INTERVAL_MS);
  assert.equal(told.length, 1);
  await clock.advance(INTERVAL_MS);
  assert.deepEqual(
    told,
    Array.from({ length: 2 }, () => told[0]),
  );
  await monitor.stop();
  assert.equal(clock.sleepers, 0);
});

test("failures of different parts do not add up, and of two that have failed the VMM is told", async () => {
  const { sandbox, clock, told, monitor } = monitored();
  monitor.start();
  await clock.advance(0);
  for (let look = 0; look < 4; look += 1) {
    sandbox.vmm = look % 2 === 0 ? failing : fine;
    sandbox.agent = look % 2 === 0 ? fine : failing;
    await clock.advance(INTERVAL_MS);
  }
  assert.deepEqual(told, []);
  sandbox.vmm = fine;
  sandbox.agent = fine;
  await clock.advance(INTERVAL_MS);
  sandbox.vmm = failing;
  sandbox.agent = failing;
  for (let look = 0; look < 3; look += 1) await clock.advance(INTERVAL_MS);
  assert.deepEqual(told, ["vmm: the VM's process did not answer 3 times in a row: broken pipe"]);
  for (let look = 0; look < 4; look += 1) await clock.advance(INTERVAL_MS);
  assert.equal(told.length, 1);
  // The agent failed along with it; it counts from when the VMM answers.
  sandbox.vmm = fine;
  for (let look = 0; look < 2; look += 1) await clock.advance(INTERVAL_MS);
  assert.equal(told.length, 1);
  await clock.advance(INTERVAL_MS);
  assert.equal(told[1], "agent: the guest's agent did not answer 3 times in a row: broken pipe");
  await monitor.stop();
});

test("a look without an answer has a deadline", async () => {
  const { sandbox, clock, told, monitor } = monitored();
  sandbox.vmm = silent;
  monitor.start();
  await clock.advance(0);
  for (let look = 0; look < 3; look += 1) {
    await clock.advance(INTERVAL_MS);
    await clock.advance(CHECK_TIMEOUT_MS);
  }
  assert.deepEqual(told, ["vmm: the VM's process did not answer 3 times in a row: no answer within 1000 ms"]);
});

test("stop waits for a look under way and lets nothing be told; a new start counts from zero", async () => {
  const { sandbox, clock, told, monitor } = monitored();
  sandbox.agent = failing;
  monitor.start();
  await clock.advance(0);
  await clock.advance(INTERVAL_MS);
  await clock.advance(INTERVAL_MS);
  const { promise, reject } = Promise.withResolvers<void>();
  sandbox.agent = () => promise;
  await clock.advance(INTERVAL_MS);
  let stopped = false;
  const stopping = monitor.stop().then(() => {
    stopped = true;
  });
  await clock.advance(0);
  assert.equal(stopped, false);
  reject(new Error("the third failure"));
  await stopping;
  sandbox.agent = failing;
  monitor.start();
  await clock.advance(0);
  await clock.advance(INTERVAL_MS);
  await clock.advance(INTERVAL_MS);
  assert.deepEqual(told, []);
  await clock.advance(INTERVAL_MS);
  assert.equal(told.length, 1);
  await monitor.stop();
  await monitor.stop();
});

test("a look that never answers holds stop up until its deadline only", async () => {
  const { sandbox, clock, monitor } = monitored();
  sandbox.vmm = silent;
  monitor.start();
  await clock.advance(0);
  await clock.advance(INTERVAL_MS);
  let isStopped = false;
  const stopping = monitor.stop().then(() => {
    isStopped = true;
  });
  await clock.advance(CHECK_TIMEOUT_MS - 1);
  assert.equal(isStopped, false);
  await clock.advance(1);
  await stopping;
  assert.equal(isStopped, true);
});

test("a grace is time before the first look", async () => {
  const { sandbox, clock, told, monitor } = monitored();
  sandbox.agent = failing;
  monitor.start(60_000);
  await clock.advance(0);
  for (let waitedMs = 0; waitedMs < 60_000; waitedMs += INTERVAL_MS) await clock.advance(INTERVAL_MS);
  assert.deepEqual(told, []);
  for (let looks = 0; looks < 4; looks += 1) await clock.advance(INTERVAL_MS);
  assert.equal(told.length, 1);
  await monitor.stop();
});
