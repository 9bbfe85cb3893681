/** A sandbox whose guest does not come up: each cause has its own reason, and nothing is left. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../../src/agent-client/index.ts";
import { type BelljarError, silentLog, systemClock } from "../../src/base/index.ts";
import { type GuestImages, openGuestImages } from "../../src/guest/index.ts";
import { createQemu, type Vm } from "../../src/hypervisor/index.ts";
import { openImageStore } from "../../src/images/index.ts";
import { openRuntime, type RuntimeCore } from "../../src/runtime/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { TestGuest } from "../support/guest.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";

interface World {
  readonly runtime: RuntimeCore;
  /** The VM that was started last. */
  readonly vm: Promise<Vm>;
  assertNothingLeft(): Promise<void>;
}

async function makeWorld(t: TestScope, kernelArguments: readonly string[] = []): Promise<World> {
  const rootDir = await tempDir(t);
  const runDir = await tempDir(t);
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  const qemu = createQemu({ log: silentLog });
  const guestImages = openGuestImages({ dir: guest, log: silentLog });
  const changed = async (image: ReturnType<GuestImages["current"]>): ReturnType<GuestImages["current"]> => {
    const found = await image;
    return { ...found, kernelArguments: [...found.kernelArguments, ...kernelArguments] };
  };
  const started = Promise.withResolvers<Vm>();
  const runtime = await openRuntime({
    hypervisor: {
      info: () => qemu.info(),
      attach: (state) => qemu.attach(state),
      compatibility: (config) => qemu.compatibility(config),
      traits: (config) => qemu.traits(config),
      startWaiting: (config, options) => qemu.startWaiting(config, options),
      start: async (config, options) => {
        const vm = await qemu.start(config, options);
        started.resolve(vm);
        return vm;
      },
    },
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImages: { current: () => changed(guestImages.current()), open: (digest) => guestImages.open(digest) },
    images: await openImageStore({ dir: join(rootDir, "images"), guestDir: guest, log: silentLog }),
    connectAgent,
    rootDir,
    runDir,
    clock: systemClock,
    log: silentLog,
  });
  t.after(() => runtime.release());
  return {
    runtime,
    vm: started.promise,
    assertNothingLeft: async () => {
      assert.deepEqual(await readdir(join(rootDir, "sandboxes")), []);
      assert.deepEqual(await readdir(runDir), []);
    },
  };
}

test("a kernel that panics is told from a VM that merely ends", async (t) => {
  const world = await makeWorld(t, ["rdinit=/no-such-init", "init=/no-such-init"]);
  await assert.rejects(world.runtime.sandboxes.create({ image: "busybox" }), (error: BelljarError) => {
    assert.equal(error.reason, "GUEST_PANIC");
    assert.match(error.message, /Kernel panic/);
    return true;
  });
  await world.assertNothingLeft();
});

test("a guest that does not answer in time is given up with AGENT_TIMEOUT", async (t) => {
  const world = await makeWorld(t);
  await assert.rejects(world.runtime.sandboxes.create({ image: "busybox", bootTimeoutMs: 200 }), {
    reason: "AGENT_TIMEOUT",
  });
  await world.assertNothingLeft();
});

test("a VMM that is killed is reported to whoever waits for the agent", async (t) => {
  const world = await makeWorld(t);
  const waiting = assert.rejects(world.runtime.sandboxes.create({ image: "busybox" }), { reason: "VMM_DIED" });
  const { pid } = await (await world.vm).info();
  process.kill(pid, "SIGKILL");
  await waiting;
  await world.assertNothingLeft();
});

test("a cancelled start leaves nothing, whenever it is cancelled", async (t) => {
  const world = await makeWorld(t);
  for (const delayMs of [0, 5, 20, 60, 500]) {
    const signal = AbortSignal.timeout(delayMs);
    await assert.rejects(world.runtime.sandboxes.create({ image: "busybox" }, { signal }), { reason: "CANCELLED" });
  }
  await world.assertNothingLeft();
});

test("the agent answers, and an idle guest of 256 MiB uses at most 80 MB", async (t) => {
  const { agent } = await TestGuest.boot(t);
  const stats = await agent.call("getGuestStats", {});
  const usedMb = Number(stats.memoryTotalBytes - stats.memoryAvailableBytes) / 1e6;
  t.diagnostic(`used by an idle guest: ${usedMb.toFixed(1)} MB`);
  assert.equal(usedMb > 0 && usedMb <= 80, true, `${usedMb} MB`);
});
