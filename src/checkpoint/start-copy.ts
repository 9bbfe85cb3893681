/** Starts a VM from a snapshot, for a sandbox that was written down: memory, devices and disks as they were, an identity of its own. */
import { randomUUID } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, machineIdOf } from "../base/index.ts";
import { type HostSandbox, layOverlay, linkInto, overlayPath, removeOwnDisk } from "../container/index.ts";
import type { GuestImage } from "../guest/index.ts";
import type { DiskConfig, VmState } from "../hypervisor/interface.ts";
import { type LoadSource, networkSteps, type ReturningState, ROOT_SERIAL, type WayBack } from "../sandbox/index.ts";
import { copyBeginning } from "./checkpoint-files.ts";
import { type CopiedState, diskPlace } from "./copy-state.ts";
import { refuseHookFailures, tellHookFailures } from "./hooks.ts";
import type { FoundLayers } from "./layers.ts";
import type { GuestMemory } from "./memory/index.ts";
import { plainPages } from "./packed-pages.ts";
import type { FrozenDisk, FrozenLog, Snapshot } from "./snapshot.ts";

/** The names that a copy's own disks will have. Nothing is made. */
export function planDisks(disks: readonly FrozenDisk[], disksDir: string): ReadonlyMap<string, string> {
  return new Map(disks.map(({ serial, files }) => [serial, overlayPath(diskPlace(disksDir, files))]));
}

/** The same for a sandbox that has other files for them, and no VM: they go. */
export async function replaceDisks(disks: readonly FrozenDisk[], disksDir: string): Promise<void> {
  for (const { files } of disks) {
    const [last] = files;
    if (last !== undefined) await removeOwnDisk(diskPlace(disksDir, [last]));
  }
  await makeDisks(disks, disksDir);
}

/** All that a copy of the snapshot has there, in place of whatever is there. */
export async function makeCopiedDisks(snapshot: Snapshot, layers: FoundLayers, disksDir: string): Promise<void> {
  await rm(disksDir, { recursive: true, force: true });
  await mkdir(disksDir, { recursive: true, mode: 0o700 });
  await makeDisks(snapshot.disks, disksDir);
  for (const path of layers.own) await linkInto(path, disksDir);
}

/** Makes them: the frozen files under names of the copy's own, and an empty one over each. */
async function makeDisks(disks: readonly FrozenDisk[], disksDir: string): Promise<void> {
  for (const { serial, files } of disks) {
    for (const path of files) await linkInto(path, disksDir);
    const path = diskPlace(disksDir, files);
    const format = path.endsWith(".qcow2") ? "qcow2" : "raw";
    await layOverlay({ serial, path, format, readOnly: false } satisfies DiskConfig);
  }
}

export async function copyLogs(logs: readonly FrozenLog[], logsDir: string): Promise<void> {
  for (const { containerId, starts, files } of logs) {
    const dir = join(logsDir, containerId, String(starts));
    await mkdir(dir, { recursive: true, mode: 0o700 });
    for (const { path, sizeBytes } of files) {
      await copyBeginning(path, join(dir, path.slice(path.lastIndexOf("/") + 1)), sizeBytes);
    }
  }
}

export interface StartCopyDeps {
  readonly sandbox: HostSandbox;
  readonly memory: GuestMemory;
  readonly guestImage: GuestImage;
}

export interface StartCopyOptions {
  /** `resumed`: the sandbox itself, which knows nothing of its having been away but the time. */
  readonly event: "restored" | "forked" | "resumed";
  readonly keepExec: boolean;
  /** Nobody will want anything of its agent soon. */
  readonly rests?: boolean | undefined;
  /** What its state says once it runs; as it was unless told. */
  readonly running?: ((now: CopiedState["first"]) => CopiedState["first"]) | undefined;
  /** As in what a sandbox is loaded from. */
  readonly takeWaiting?: LoadSource["takeWaiting"];
  readonly makeDisks?: LoadSource["makeDisks"];
  /** Its containers run, and its agent is being asked; what they write may be asked for. */
  readonly onAsked?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface StartedCopy {
  /** Its agent has answered, and knows what has become of it; otherwise it is for the caller to ask. */
  readonly isIntroduced: boolean;
  /** Of one that is asked already: settles with its agent's answer. */
  readonly asked?: Promise<unknown> | undefined;
}

/** Its containers run when it resolves. On an error what was started is for the caller to end. */
export async function startCopy(
  { sandbox, memory, guestImage }: StartCopyDeps,
  snapshot: Snapshot,
  { event, keepExec, rests = false, running = (now) => now, takeWaiting, makeDisks, onAsked, signal }: StartCopyOptions,
): Promise<StartedCopy> {
  const { vm, agentInstance } = snapshot.state;
  if (vm === undefined || agentInstance === undefined) throw new BelljarError("INTERNAL", "a snapshot without a VM");
  const { pages, stoppedAtMs } = snapshot;
  const rest = rests ? snapshot.state.wake?.rest?.path : undefined;
  const returning: ReturningState = {
    event,
    generation: sandbox.state.generation,
    ...(event === "resumed" ? {} : newIdentity(sandbox.id)),
    endProcesses: !keepExec,
    rest,
  };
  await using plain = await plainPages(snapshot, `${sandbox.memoryPath}.pages`, signal);
  await sandbox.load(
    guestImage,
    placedVm(vm, sandbox, guestImage),
    {
      devices: snapshot.devices,
      memory: snapshot.memory,
      agentInstance,
      returning,
      takeWaiting,
      makeDisks,
      stoppedAtMs,
      fillMemory: async ({ pid }, blocks) => {
        await memory.load(pid, blocks, pages, plain);
      },
    },
    { signal },
  );
  const toldAtMs = await sandbox.machine.comeBack(wayBack(snapshot.state, sandbox, rests), signal);
  if (toldAtMs !== undefined) {
    // Who waits for its output, or its answer, does not wait for its state to be written too.
    const asked = rests ? undefined : sandbox.machine.agent();
    asked?.catch(() => {});
    if (!rests) onAsked?.();
    await sandbox.update((now) => running({ ...now, returning: { ...returning, toldAtMs } }));
    return { isIntroduced: false, asked };
  }
  await sandbox.agent(signal);
  const failures = sandbox.machine.hookFailures;
  if (event === "resumed") tellHookFailures(sandbox.log, failures);
  else refuseHookFailures(failures);
  await sandbox.update(running);
  return { isIntroduced: true };
}

/** Another network must be known to the guest before anything of it runs: its connections to the outside are another's. */
function wayBack(
  { wake, network }: Snapshot["state"],
  { state, log }: HostSandbox,
  rests: boolean,
): WayBack | undefined {
  if (wake === undefined) return undefined;
  const steps = networkSteps(wake.interfaces, network, state.network);
  if (steps !== undefined) return { plan: wake, networkSteps: steps, rests };
  log.info("a copy is brought back by its agent, which takes longer", {
    cause: "its network has other interfaces than its source's, or than the guest has",
  });
  return undefined;
}

function newIdentity(id: string): { readonly machineId: string; readonly bootId: string } {
  // The one that it has whenever it is started.
  return { machineId: machineIdOf(id), bootId: randomUUID({ disableEntropyCache: true }) };
}

/** The saved VM with the disks that this sandbox has. */
function placedVm(saved: VmState, sandbox: HostSandbox, { rootPath }: GuestImage): VmState {
  const own = new Map(
    sandbox.state.containers.flatMap(({ disks }) => disks.map((disk) => [disk.serial, disk] as const)),
  );
  return {
    ...saved,
    disks: saved.disks.map((disk) => {
      if (disk.serial === ROOT_SERIAL) return { ...disk, path: rootPath };
      const { path, format } = own.get(disk.serial) ?? disk;
      return { ...disk, path, format };
    }),
  };
}
