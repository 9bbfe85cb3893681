/**
 * A copy that is loaded, and stands still until somebody wants it. Before that its guest has run for a moment, its containers standing still
 * all the while: what a copy is asked for first was done in it once, in a container that is gone, so that it is quick even where every
 * instruction is translated when it first runs.
 *
 * Invariant: whoever it becomes, its workload has seen nothing of it. Its disks are no other VM's, for its guest may have written to them.
 */
import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import type { AgentLink, ConnectAgent } from "../agent-client/index.ts";
import { BelljarError, type Clock, type Log, type ProcessIdentity, sandboxLimits } from "../base/index.ts";
import type { GuestImage } from "../guest/index.ts";
import type { DeviceConfig, Hypervisor, LoadOptions, Vm, VmConfig, VmState } from "../hypervisor/interface.ts";
import { networkPath } from "../network/index.ts";
import { encodeWake, type PlannedWake, WAKE_ENTROPY_BYTES } from "../protocol/index.ts";
import {
  bootOf,
  placeNics,
  ROOT_SERIAL,
  resumeWith,
  savedConfig,
  unfinishedDir,
  type WaitingCopy,
} from "../sandbox/index.ts";
import { findLayers } from "./layers.ts";
import type { GuestMemory } from "./memory/index.ts";
import { withDiskPaths } from "./moved-disks.ts";
import { plainPages } from "./packed-pages.ts";
import { rehearseAside } from "./rehearsal.ts";
import type { Snapshot } from "./snapshot.ts";
import { makeCopiedDisks, planDisks } from "./start-copy.ts";
import type { WaitingPlace } from "./waiting-room.ts";

export interface StandbyDeps {
  readonly hypervisor: Hypervisor;
  readonly connectAgent: ConnectAgent;
  /** Its disks are made where its sandbox's directory will be. */
  readonly sandboxesDir: string;
  readonly layersDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** What it is made of. */
export interface StandbySource {
  readonly snapshot: Snapshot;
  readonly image: GuestImage;
  readonly memory: GuestMemory;
}

export class Standby implements WaitingCopy {
  readonly ranUntilMs: number;
  readonly vmm: ProcessIdentity;
  readonly ended: Promise<unknown>;
  readonly link: AgentLink;
  readonly #vm: Vm;
  readonly #dir: string;

  private constructor(vm: Vm, dir: string, { ranUntilMs, link }: Rehearsal) {
    this.link = link;
    this.#vm = vm;
    this.#dir = dir;
    this.ranUntilMs = ranUntilMs;
    this.vmm = vm.save().vmm;
    this.ended = vm.ended;
  }

  /** On an error nothing of it is left. */
  static async make(
    deps: StandbyDeps,
    source: StandbySource,
    place: WaitingPlace,
    signal: AbortSignal,
  ): Promise<Standby> {
    const dir = unfinishedDir(deps.sandboxesDir, place.id);
    let vm: Vm | undefined;
    try {
      vm = await loadAt(deps, source, place, dir, signal);
      return new Standby(vm, dir, await runAside(deps, source.snapshot, vm, place.id, signal));
    } catch (error) {
      await vm?.kill();
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  async load(config: VmConfig, { onSpawn }: LoadOptions): Promise<Vm> {
    checkFits(this.#vm.save(), config);
    onSpawn?.(this.vmm).catch(() => {});
    const disks = new Map(config.disks.map(({ serial, path }) => [serial, path]));
    this.#vm.renameFiles({ disks, memoryFile: config.memoryFile });
    return this.#vm;
  }

  /** Its files are a sandbox's by then, or go with it. */
  async kill(): Promise<void> {
    await this.link.close();
    await this.#vm.kill();
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** Its files may have been renamed with their directory. @throws BelljarError `CHECKPOINT_MISMATCH` */
function checkFits(saved: VmState, { disks, devices = [] }: VmConfig): void {
  const wanted = new Map(disks.map(({ serial, path }) => [serial, basename(path)]));
  const nics = (of: readonly DeviceConfig[]): string =>
    JSON.stringify(of.map((each) => (each.kind === "net" ? [each.id, each.tap, each.macAddress] : each)));
  const fits =
    disks.length === saved.disks.length &&
    saved.disks.every(({ serial, path }) => wanted.get(serial) === basename(path)) &&
    nics(saved.devices ?? []) === nics(devices);
  if (!fits) throw new BelljarError("CHECKPOINT_MISMATCH", "it has other disks or interfaces than the copy is to have");
}

async function loadAt(
  { hypervisor, layersDir }: StandbyDeps,
  { snapshot, image, memory }: StandbySource,
  { id, runDir, network, onSpawn }: WaitingPlace,
  dir: string,
  signal: AbortSignal,
): Promise<Vm> {
  const disksDir = join(dir, "disks");
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const layers = await findLayers(snapshot, layersDir, disksDir);
  await makeCopiedDisks(snapshot, layers, disksDir);
  const paths = new Map([
    ...planDisks(snapshot.disks, disksDir),
    ...layers.paths,
    [ROOT_SERIAL, image.rootPath] as const,
  ]);
  const { vm } = withDiskPaths(snapshot.state, paths);
  if (vm === undefined) throw new BelljarError("INTERNAL", "a snapshot without a VM");
  const { devices, later } = placeNics(vm.devices ?? [], network);
  if (later.length > 0) throw new BelljarError("NETWORK_FAILED", "the source had fewer network interfaces");
  await using plain = await plainPages(snapshot, join(dir, "pages"), signal);
  const config: VmConfig = {
    ...savedConfig(vm),
    devices,
    id,
    runDir,
    boot: bootOf(image),
    networkNamespace: network === undefined ? undefined : networkPath(network),
    ...(snapshot.memory === undefined ? {} : { memoryFile: { ...snapshot.memory, use: "private" } }),
  };
  return await hypervisor.start(config, {
    signal,
    onSpawn,
    loadDevicesFrom: snapshot.devices.path,
    loadDevicesAt: snapshot.devices.at,
    fillMemory: async ({ pid }, blocks) => {
      await memory.load(pid, blocks, snapshot.pages, plain);
    },
  });
}

interface Rehearsal {
  /** When it stood still again, in milliseconds since the epoch; its clock is right until then. */
  readonly ranUntilMs: number;
  /** Its agent waits for what comes next on the same connection. */
  readonly link: AgentLink;
}

async function runAside(
  { connectAgent, clock, log }: StandbyDeps,
  { state: { wake, agentInstance, generation }, stoppedAtMs }: Snapshot,
  vm: Vm,
  id: string,
  signal: AbortSignal,
): Promise<Rehearsal> {
  if (wake === undefined) throw new BelljarError("INTERNAL", "a copy that only its agent can bring back");
  if (!(await resumeWith(vm, stillMessage(wake, clock.nowMs(), stoppedAtMs), log, signal))) {
    throw new BelljarError("AGENT_FAILED", "the guest's wake program did not set its clock");
  }
  const timeoutMs = sandboxLimits.bootTimeoutMs;
  const link = await connectAgent({ socketPath: vm.agentSocketPath, timeoutMs, signal, log });
  try {
    if (link.hello.agentInstance !== agentInstance) throw new BelljarError("AGENT_FAILED", "it is another agent");
    const words = { sandboxId: id, generation: generation + 1, realtimeMs: clock.nowMs() };
    if (link.hello.rehearses) await rehearseAside(link, words, signal);
    await vm.pause();
    return { ranUntilMs: clock.nowMs(), link };
  } catch (error) {
    await link.close();
    throw error;
  }
}

/** Other random numbers than its source's, the time, and nothing that has its containers go on. */
function stillMessage({ thaw }: PlannedWake, nowMs: number, stoppedAtMs: number | undefined): Buffer {
  return encodeWake({
    entropy: randomBytes(WAKE_ENTROPY_BYTES),
    clock: stoppedAtMs === undefined ? { realtimeMs: nowMs } : { advanceMs: nowMs - stoppedAtMs },
    steps: [{ kind: "write", path: thaw.path, text: "1" }],
  });
}
