/** Cold boots of a bare VM: from the start of the VMM to the agent's first answer, no container, no sandbox around it. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../src/agent-client/index.ts";
import { newId, silentLog } from "../src/base/index.ts";
import type { GuestImage } from "../src/guest/index.ts";
import { type Acceleration, createQemu } from "../src/hypervisor/index.ts";

export interface BootOptions {
  readonly guestImage: GuestImage;
  /** Sockets go below it; short. */
  readonly dir: string;
  readonly acceleration: Acceleration;
}

export interface Boot {
  readonly readyMs: number;
  /** MemTotal less MemAvailable of the idle guest. */
  readonly usedMb: number;
}

const MEMORY_MIB = 256;
const BOOT_TIMEOUT_MS = 60_000;

export async function bootOnce({ guestImage, dir, acceleration }: BootOptions): Promise<Boot> {
  const id = newId();
  const runDir = join(dir, id);
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  const { kernelPath, initrdPath, kernelArguments, rootPath } = guestImage;
  const start = performance.now();
  const vm = await createQemu({ log: silentLog }).start({
    id,
    runDir,
    acceleration,
    memoryMib: MEMORY_MIB,
    cpus: 1,
    boot: { kernelPath, initrdPath, kernelArguments },
    disks: [{ serial: "root", path: rootPath, format: "raw", readOnly: true }],
  });
  try {
    const link = await connectAgent({ socketPath: vm.agentSocketPath, timeoutMs: BOOT_TIMEOUT_MS, log: silentLog });
    const readyMs = performance.now() - start;
    const stats = await link.call("getGuestStats", {});
    await link.close();
    return { readyMs, usedMb: Number(stats.memoryTotalBytes - stats.memoryAvailableBytes) / 1e6 };
  } finally {
    await vm.kill();
    await rm(runDir, { recursive: true, force: true });
  }
}
