/** A sandbox whose guest does not come up: each cause has its own reason, and nothing is left. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../../src/agent-client/index.ts";
import { BelljarError, newId, silentLog, systemClock } from "../../src/base/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { createQemu } from "../../src/hypervisor/index.ts";
import { Sandbox, type SandboxConfig, type SandboxDeps, settleSandboxConfig } from "../../src/sandbox/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";

async function makeDeps(t: TestScope): Promise<SandboxDeps> {
  const dir = await tempDir(t);
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  return {
    hypervisor: createQemu({ log: silentLog }),
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImage: await openGuestImages({ dir: guest, log: silentLog }).current(),
    connectAgent,
    sandboxesDir: join(dir, "sandboxes"),
    runDir: join(dir, "run"),
    clock: systemClock,
    log: silentLog,
  };
}

function create(deps: SandboxDeps, config: SandboxConfig = {}, signal?: AbortSignal): Promise<Sandbox> {
  const id = newId();
  return Sandbox.create(deps, id, "busybox", settleSandboxConfig(config, id), signal);
}

async function assertNothingLeft(deps: SandboxDeps): Promise<void> {
  assert.deepEqual(await readdir(deps.sandboxesDir), []);
  assert.deepEqual(await readdir(deps.runDir), []);
}

test("a kernel that panics is told from a VM that merely ends", async (t) => {
  const deps = await makeDeps(t);
  const guestImage = {
    ...deps.guestImage,
    kernelArguments: [...deps.guestImage.kernelArguments, "rdinit=/no-such-init", "init=/no-such-init"],
  };
  const sandbox = await create({ ...deps, guestImage });
  await assert.rejects(sandbox.agent(), (error: BelljarError) => {
    assert.equal(error.reason, "GUEST_PANIC");
    assert.match(error.message, /Kernel panic/);
    return true;
  });
  await sandbox.delete();
  await assertNothingLeft(deps);
});

test("a guest that does not answer in time is given up with AGENT_TIMEOUT", async (t) => {
  const deps = await makeDeps(t);
  const sandbox = await create(deps, { bootTimeoutMs: 200 });
  await assert.rejects(sandbox.agent(), { reason: "AGENT_TIMEOUT" });
  await sandbox.delete();
  await assertNothingLeft(deps);
});

test("a VMM that is killed is reported to whoever waits for the agent", async (t) => {
  const deps = await makeDeps(t);
  const sandbox = await create(deps);
  const waiting = assert.rejects(sandbox.agent(), { reason: "VMM_DIED" });
  const { vmmPid } = await sandbox.info();
  process.kill(vmmPid, "SIGKILL");
  await waiting;
  await sandbox.delete();
  await assertNothingLeft(deps);
});

test("a cancelled start leaves nothing, whenever it is cancelled", async (t) => {
  const deps = await makeDeps(t);
  for (const delayMs of [0, 5, 20, 60]) {
    const signal = AbortSignal.timeout(delayMs);
    const sandbox = await create(deps, {}, signal).catch((error: unknown) => {
      assert.equal(BelljarError.from(error).reason, "CANCELLED");
      return undefined;
    });
    await sandbox?.delete();
  }
  await assertNothingLeft(deps);
});

test("the agent answers, and an idle guest of 256 MiB uses at most 80 MB", async (t) => {
  const deps = await makeDeps(t);
  await using sandbox = await create(deps, { memoryMib: 256 });
  const agent = await sandbox.agent();
  const stats = await agent.call("getGuestStats", {});
  const usedMb = Number(stats.memoryTotalBytes - stats.memoryAvailableBytes) / 1e6;
  t.diagnostic(`used by an idle guest: ${usedMb.toFixed(1)} MB`);
  assert.equal(usedMb > 0 && usedMb <= 80, true, `${usedMb} MB`);
});
