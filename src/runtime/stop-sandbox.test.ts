/** A sandbox is stopped although its guest does not help. */
import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import type { AgentMethod } from "../agent-client/index.ts";
import { BelljarError, sandboxLimits } from "../base/index.ts";

test("forced stop: an agent that says nothing, from the beginning or after the first answer, is not waited for", async (t) => {
  const silentFrom = async (method: AgentMethod, timeoutMs: number): Promise<void> => {
    const world = await MemoryRuntime.open(t);
    const sandbox = await world.core.sandboxes.create({ image: "busybox" });
    const release = world.guests.hold(method);
    const beganMs = performance.now();
    await sandbox.stop({ force: true, timeoutMs: 100 });
    const tookMs = performance.now() - beganMs;
    release();
    assert.ok(tookMs < timeoutMs + 5_000, `${method}: ${tookMs} ms`);
    assert.deepEqual([(await sandbox.info()).state, (await sandbox.main.info()).state], ["stopped", "stopped"]);
    assert.deepEqual(world.hypervisor.live, []);
    await sandbox.delete();
  };
  const { agentCheckTimeoutMs, forcedCallTimeoutMs, forcedKillTimeoutMs, drainTimeoutMs } = sandboxLimits;
  await Promise.all([
    silentFrom("getGuestStats", agentCheckTimeoutMs),
    silentFrom("signalProcess", forcedCallTimeoutMs + forcedKillTimeoutMs + drainTimeoutMs),
  ]);
});

test("forced stop: a stop signal that is not heard is followed by SIGKILL", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox", container: { command: ["stubborn"] } });
  world.guests.fault("signalProcess", { kind: "fail", error: new BelljarError("AGENT_FAILED", "the test says no") });
  await sandbox.main.stop({ force: true, timeoutMs: 5_000 });
  assert.equal((await sandbox.main.wait()).signal, 9);
  await sandbox.delete({ force: true });
});

test("forced stop: a paused sandbox is stopped without being resumed", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox" });
  await sandbox.pause();
  world.hypervisor.calls.length = 0;
  await sandbox.stop({ force: true });
  assert.deepEqual([(await sandbox.info()).state, (await sandbox.main.info()).state], ["stopped", "stopped"]);
  assert.equal(
    world.hypervisor.calls.some((call) => call.startsWith("resume")),
    false,
  );
  await sandbox.delete();
});

test("stop: a container that cannot be stopped is told, the sandbox runs on; the next stop goes on from there", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox" });
  const second = await sandbox.containers.create({ image: "busybox" });
  await second.start();
  world.guests.fault("signalProcess", { kind: "fail", error: new BelljarError("AGENT_FAILED", "the test says no") });
  await assert.rejects(sandbox.stop({ timeoutMs: 1_000 }), { reason: "AGENT_FAILED", message: /the test says no/ });
  assert.equal((await sandbox.info()).state, "running");
  const states = (await sandbox.containers.list()).map(({ state }) => state);
  assert.deepEqual(states, ["running", "stopped"]);
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  await sandbox.stop({ timeoutMs: 1_000 });
  assert.equal((await sandbox.info()).state, "stopped");
  await sandbox.delete();
});

test("stop: an image whose stop signal is none is stopped with SIGTERM", async (t) => {
  const world = await MemoryRuntime.open(t);
  const { images } = world.deps;
  Object.assign(world.deps, {
    images: {
      hold: async (name: string) => {
        const image = await images.hold(name);
        return { ...image, config: { ...image.config, stopSignal: "SIGNONSENSE" } };
      },
    },
  });
  const sandbox = await world.core.sandboxes.create({ image: "busybox" });
  await sandbox.main.stop();
  assert.equal((await sandbox.main.wait()).signal, 15);
  await sandbox.delete({ force: true });
});
