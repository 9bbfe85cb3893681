/**
 * Takes a snapshot of a sandbox that goes on. In this order, so that what can be done before or after the guest stands still is:
 *
 *     check, open overlays for the disks | freeze the containers | stop | device state, memory, overlays | go on | thaw | write, link
 *
 * Invariant: whatever fails, the sandbox goes on as it was, on the disks that it was on or on their overlays; its state says on which.
 */
import { join } from "node:path";
import { type Clock, messageChain } from "../base/index.ts";
import {
  type ContainerState,
  chainOf,
  type HostSandbox,
  layOverlay,
  type Outputs,
  writtenDisks,
} from "../container/index.ts";
import type { WakeLine } from "../hypervisor/interface.ts";
import type { PlannedWake } from "../protocol/index.ts";
import type { SandboxState } from "../sandbox/index.ts";
import { checkCheckpointable } from "./blockers.ts";
import { tellHookFailures } from "./hooks.ts";
import type { GuestMemory, SavedMemory } from "./memory/index.ts";
import { withDiskPaths } from "./moved-disks.ts";
import type { BaseMemory, FrozenDisk, Snapshot, SnapshotTimes } from "./snapshot.ts";

export interface CaptureDeps {
  readonly sandbox: HostSandbox;
  readonly outputs: Outputs;
  readonly memory: GuestMemory;
  readonly clock: Clock;
}

export interface Captured {
  readonly snapshot: Snapshot;
  readonly times: SnapshotTimes;
  /** Settles when the file of pages is whole. */
  readonly written: Promise<void>;
  /** Of one that was to stay as it is: it goes on after all. */
  readonly goOn: () => Promise<void>;
}

export interface CaptureOptions {
  readonly signal?: AbortSignal | undefined;
  /** It goes on from the snapshot, and from nowhere else: it stands still when this is over. */
  readonly stay?: boolean | undefined;
}

/**
 * In the sandbox's turn, with the intent written down. `dir` gets `pages.img` and `devices`.
 * @throws BelljarError `NOT_CHECKPOINTABLE`, `DISK_FULL`, what the VMM or the agent answered
 */
export async function capture(
  deps: CaptureDeps,
  dir: string,
  { signal, stay = false }: CaptureOptions = {},
): Promise<Captured> {
  const { sandbox } = deps;
  checkCheckpointable(sandbox.state);
  const { vm } = sandbox.machine;
  const blocks = await vm.memoryBlocks();
  const pagesPath = join(dir, "pages.img");
  const { pid } = vm.save().vmm;
  const prepared = await deps.memory.prepare(pid, blocks, pagesPath);
  const wasRunning = sandbox.state.state === "running";
  const { containers } = sandbox.state;
  const disks = writtenDisks(containers);
  const overlays = new Map<string, string>();
  for (const disk of disks) overlays.set(disk.serial, await layOverlay(disk));
  // Those of containers that are not in the guest have nobody who writes to them just now.
  const inUse = writtenDisks(containers.filter(({ inGuest }) => inGuest));
  await vm.openOverlays(inUse.map(({ serial }) => ({ serial, path: overlays.get(serial) ?? "" })));
  const still = new StillStand(deps, wasRunning);
  try {
    const devicesPath = join(dir, "devices");
    await vm.prepareDevices(devicesPath);
    await still.freeze(signal);
    const state = { ...sandbox.state, vm: vm.save(), wake: still.wake };
    // QEMU is what takes longest: it goes from one to the next without anybody in between.
    const stopped = still.stop();
    const work = [
      stopped,
      vm.saveDevices(devicesPath),
      vm.useOverlays(),
      stopped.then(() => deps.memory.save(pid, blocks, pagesPath, prepared)),
      stopped.then(() => deps.outputs.snapshot()),
    ] as const;
    // The guest runs on when nothing of this is under way any more.
    await Promise.allSettled(work);
    const [, , , memory, logs] = await Promise.all(work);
    // Not before: that takes the CPUs that the guest goes on with.
    const pausedMs = stay ? { pauseMs: 0, frozenMs: 0 } : await still.end("resumed");
    const written = memory.write();
    // Whoever gets it waits for it; nobody does when what comes next fails.
    written.catch(() => {});
    await sandbox.update((now) => withDiskPaths({ ...now, vm: vm.save() }, overlays));
    const frozen: FrozenDisk[] = [];
    for (const disk of disks) frozen.push({ serial: disk.serial, files: await chainOf(disk) });
    const files = { pagesPath, devices: { path: devicesPath, at: 0 }, disks: frozen, logs };
    const snapshot = snapshotOf(state, memory, files, still.stoppedAtMs);
    return { snapshot, times: pausedMs, written, goOn: async () => void (await still.end("resumed")) };
  } catch (error) {
    await still.end("resumed").catch((failure: unknown) => {
      sandbox.log.error("a sandbox could not go on after a checkpoint that failed", {
        cause: messageChain(failure).join(": "),
      });
    });
    await vm.closeOverlays().catch(() => {});
    // The disks may have been laid over before something else failed.
    const used = new Map(vm.save().disks.map(({ serial, path }) => [serial, path]));
    await sandbox.update((now) => withDiskPaths({ ...now, vm: vm.save() }, used), { force: true });
    throw error;
  }
}

function snapshotOf(
  state: SandboxState<ContainerState>,
  { blocks }: SavedMemory,
  files: Pick<Snapshot, "pagesPath" | "devices" | "disks" | "logs">,
  stoppedAtMs: number | undefined,
): Snapshot {
  return { stoppedAtMs, state, memory: baseMemory(state), pages: blocks, pagesAt: 0, layers: [], ...files };
}

/** What a snapshot of a sandbox in this state would need beside its own pages. */
export function baseMemory({ vm }: SandboxState<ContainerState>): BaseMemory | undefined {
  const { memoryFile } = vm ?? {};
  return memoryFile?.use === "private" ? { path: memoryFile.path, template: memoryFile.template } : undefined;
}

/** The time in which the containers, and in it the CPUs, stand still. A sandbox that was paused stays so. */
class StillStand {
  readonly #deps: CaptureDeps;
  readonly #wasRunning: boolean;
  #frozenAtMs: number | undefined;
  #pausedAtMs: number | undefined;
  #wakeLine: WakeLine | undefined;
  /** Since the epoch. */
  stoppedAtMs: number | undefined;
  /** How a copy may be woken. */
  wake: PlannedWake | undefined;

  constructor(deps: CaptureDeps, wasRunning: boolean) {
    this.#deps = deps;
    this.#wasRunning = wasRunning;
  }

  async freeze(signal: AbortSignal | undefined): Promise<void> {
    if (!this.#wasRunning) return;
    const { machine } = this.#deps.sandbox;
    // The guest's program that waits for it finds a host there in the copies too, and need not be told of one first; it can be told, too.
    this.#wakeLine = await machine.vm.openWakeLine().catch(() => undefined);
    this.#frozenAtMs = performance.now();
    const { hookFailures, wake } = await machine.freeze(true, signal);
    tellHookFailures(machine.log, hookFailures);
    this.wake = wake;
  }

  /** Asks for it before it answers: the VMM carries out what it is asked for next when it has stopped the guest. */
  async stop(): Promise<void> {
    if (!this.#wasRunning) return;
    this.#pausedAtMs = performance.now();
    await this.#deps.sandbox.machine.vm.pause();
    this.stoppedAtMs = this.#deps.clock.nowMs();
  }

  /** Idempotent. */
  async end(event: "resumed"): Promise<{ readonly pauseMs: number; readonly frozenMs: number }> {
    const { sandbox } = this.#deps;
    let pauseMs = 0;
    const news = { event, sandboxId: sandbox.id, generation: sandbox.state.generation };
    // Asked before the guest runs: it has the call when it wakes.
    const thawing = this.#frozenAtMs === undefined ? undefined : sandbox.machine.thaw(news);
    thawing?.catch(() => {});
    this.#wakeLine?.close();
    if (this.#pausedAtMs !== undefined) {
      const stillMs = await sandbox.machine.vm.resume();
      // Without the VMM's own account it has run for a while when this is known.
      pauseMs = stillMs ?? performance.now() - this.#pausedAtMs;
      this.#pausedAtMs = undefined;
    }
    if (this.#frozenAtMs === undefined || thawing === undefined) return { pauseMs, frozenMs: 0 };
    tellHookFailures(sandbox.log, await thawing);
    const frozenMs = performance.now() - this.#frozenAtMs;
    this.#frozenAtMs = undefined;
    return { pauseMs, frozenMs };
  }
}
