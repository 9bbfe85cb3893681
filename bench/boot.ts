/** Cold boots of a bare VM: from the start of the VMM to the agent's first answer, no container, no sandbox around it. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../src/agent-client/index.ts";
import { newId, silentLog, systemClock } from "../src/base/index.ts";
import { Templates } from "../src/checkpoint/index.ts";
import type { GuestImage } from "../src/guest/index.ts";
import { type Acceleration, createQemu, type Vm, type VmConfig } from "../src/hypervisor/index.ts";
import { acquireLock, systemDisk } from "../src/store/index.ts";

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

export async function bootOnce(options: BootOptions): Promise<Boot> {
  return await withRunDir(options.dir, async (id, runDir) => {
    const config = { ...configOf(options), id, runDir };
    const start = performance.now();
    return await meetAgent(await createQemu({ log: silentLog }).start(config), start);
  });
}

/** The same VM as a copy of a template, which is made the first time. */
export async function copyOnce(options: BootOptions): Promise<Boot> {
  const hypervisor = createQemu({ log: silentLog });
  const { dir, guestImage } = options;
  const parts = { hypervisor, connectAgent, runDir: dir, disk: systemDisk, lock: acquireLock, clock: systemClock };
  const templates = new Templates({ ...parts, dir: join(dir, "bench-templates"), log: silentLog });
  const template = await templates.get({
    vm: { ...configOf(options), id: newId(), runDir: dir },
    guestImage: guestImage.digest,
    domain: "",
  });
  return await withRunDir(dir, async (id, runDir) => {
    const memoryFile = { path: template.memoryPath, use: "private" } as const;
    const start = performance.now();
    const vm = await hypervisor.start(
      { ...configOf(options), id, runDir, memoryFile },
      { loadDevicesFrom: template.devicesPath },
    );
    await vm.resume();
    return await meetAgent(vm, start);
  });
}

function configOf({ guestImage, acceleration }: BootOptions): Omit<VmConfig, "id" | "runDir"> {
  const { kernelPath, initrdPath, kernelArguments, rootPath } = guestImage;
  return {
    acceleration,
    memoryMib: MEMORY_MIB,
    cpus: 1,
    boot: { kernelPath, initrdPath, kernelArguments },
    disks: [{ serial: "root", path: rootPath, format: "raw", readOnly: true }],
  };
}

async function withRunDir(dir: string, work: (id: string, runDir: string) => Promise<Boot>): Promise<Boot> {
  const id = newId();
  const runDir = join(dir, id);
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  try {
    return await work(id, runDir);
  } finally {
    await rm(runDir, { recursive: true, force: true });
  }
}

async function meetAgent(vm: Vm, start: number): Promise<Boot> {
  try {
    const link = await connectAgent({ socketPath: vm.agentSocketPath, timeoutMs: BOOT_TIMEOUT_MS, log: silentLog });
    const readyMs = performance.now() - start;
    const stats = await link.call("getGuestStats", {});
    await link.close();
    return { readyMs, usedMb: Number(stats.memoryTotalBytes - stats.memoryAvailableBytes) / 1e6 };
  } finally {
    await vm.kill();
  }
}
