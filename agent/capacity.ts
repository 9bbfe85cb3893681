/**
 * What the guest has of CPUs and memory while its VM grows and shrinks: loads what plugging memory needs when it is first needed,
 * has as many CPUs online as it should, and keeps the bound of all containers a little under what there is.
 */
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { setFile } from "./cgroup-files.ts";
import type { Cgroups } from "./cgroups.ts";
import type { System } from "./system.ts";
import type { RunTool } from "./tools.ts";
import { Turns } from "./turns.ts";

export interface CapacityDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
  readonly system: Pick<System, "memory">;
  readonly cgroups: Pick<Cgroups, "bound">;
}

export interface CapacityFacts {
  /** Online. */
  readonly cpus: number;
  readonly pluggedBytes: number;
}

/** Plugged memory is online, and a new CPU there, a moment after the VMM has it; an emulated guest under load takes longer. */
const SETTLE_TIMEOUT_MS = 5_000;
const SETTLE_PAUSE_MS = 20;
/** What a guest that gives memory back must keep to work with, on top of what is in use. */
const KEPT_FREE_BYTES = 48 * 1024 * 1024;
/** Memory goes in blocks of this size. */
const BLOCK_BYTES = 2 * 1024 * 1024;
/** The kernel describes 64 bytes of memory in one, and takes it from what there was before. */
const DESCRIPTION_SHARE = 64;

/**
 * How the kernel takes new memory: at once, and such that it can be taken away again, as far as it keeps three parts of that to
 * one part that can hold the kernel's own data.
 */
const MEMORY_POLICY = [
  ["module/memory_hotplug/parameters/online_policy", "auto-movable"],
  ["devices/system/memory/auto_online_blocks", "online"],
] as const;

export class Capacity {
  readonly #deps: CapacityDeps;
  readonly #turns = new Turns();
  #bootBytes = 0;
  /** Of that, what was free before any container ran. */
  #availableBytes = 0;
  #hasDriver = false;

  constructor(deps: CapacityDeps) {
    this.#deps = deps;
  }

  /** At the agent's start, before any container runs. */
  async begin(): Promise<void> {
    const { totalBytes, availableBytes } = await this.#deps.system.memory();
    this.#bootBytes = totalBytes;
    this.#availableBytes = availableBytes;
    await this.#deps.cgroups.bound(availableBytes);
  }

  /** Waits a little until there is what the VM has. @throws BelljarError `AGENT_FAILED` without the driver for memory */
  async fit(vm: CapacityFacts): Promise<CapacityFacts> {
    return await this.#turns.take(async () => {
      await this.#prepare();
      const endMs = performance.now() + SETTLE_TIMEOUT_MS;
      let now = await this.#look(vm.cpus);
      while ((now.cpus !== vm.cpus || now.pluggedBytes !== vm.pluggedBytes) && performance.now() < endMs) {
        await sleep(SETTLE_PAUSE_MS);
        now = await this.#look(vm.cpus);
      }
      await this.#bound(Math.min(now.pluggedBytes, vm.pluggedBytes));
      return now;
    });
  }

  /**
   * Before memory is taken away: containers may have no more of it than will be left. Answers what must stay, since it is in use:
   * a guest from which more is taken kills what uses it.
   */
  async makeRoom(vm: CapacityFacts): Promise<CapacityFacts> {
    return await this.#turns.take(async () => {
      const { totalBytes, availableBytes } = await this.#deps.system.memory();
      const freeBytes = Math.max(0, availableBytes - KEPT_FREE_BYTES);
      const neededBytes = Math.max(0, totalBytes - this.#bootBytes - freeBytes);
      const pluggedBytes = Math.max(vm.pluggedBytes, Math.ceil(neededBytes / BLOCK_BYTES) * BLOCK_BYTES);
      await this.#bound(pluggedBytes);
      return { cpus: vm.cpus, pluggedBytes };
    });
  }

  async #bound(pluggedBytes: number): Promise<void> {
    const described = Math.ceil(pluggedBytes / DESCRIPTION_SHARE);
    await this.#deps.cgroups.bound(this.#availableBytes + pluggedBytes - described);
  }

  async #prepare(): Promise<void> {
    if (this.#hasDriver) return;
    for (const [path, value] of MEMORY_POLICY) await setFile(`${this.#deps.sysDir}/${path}`, value);
    await this.#deps.runTool("busybox", ["modprobe", "virtio_mem"]);
    this.#hasDriver = true;
  }

  async #look(wantedCpus: number): Promise<CapacityFacts> {
    const { totalBytes } = await this.#deps.system.memory();
    return { cpus: await this.#switchCpus(wantedCpus), pluggedBytes: Math.max(0, totalBytes - this.#bootBytes) };
  }

  /** As many online as there should be, the first ones; answers how many are. */
  async #switchCpus(wanted: number): Promise<number> {
    const dir = `${this.#deps.sysDir}/devices/system/cpu`;
    const numbers = (await readdir(dir)).flatMap((name) => /^cpu(\d+)$/.exec(name)?.[1] ?? []).map(Number);
    let online = 0;
    for (const [index, number] of numbers.sort((a, b) => a - b).entries()) {
      if (await this.#switchCpu(`${dir}/cpu${number}/online`, index < wanted)) online += 1;
    }
    return online;
  }

  /** Whether it is online then. The first one has no switch; one that is just going may refuse. */
  async #switchCpu(path: string, wanted: boolean): Promise<boolean> {
    const isOnline = (await readFile(path, "utf8").catch(() => "1")).trim() === "1";
    if (isOnline === wanted) return isOnline;
    return await setFile(path, wanted ? "1" : "0").then(
      () => wanted,
      () => isOnline,
    );
  }
}
