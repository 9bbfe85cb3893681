/**
 * A sandbox without a VM that goes on when somebody wants something of it: its snapshot is a checkpoint of its own, in `saved/`, and it
 * is restored in place. Going back to an earlier checkpoint is the same, from other files.
 *
 *     hibernate   pending | snapshot, and it stays as it is | checkpoint | hibernation in the state | VM ended | pending cleared
 *     wake        pending | disks | VM loaded | thawed | hibernation out of the state, pending cleared | checkpoint removed
 *     rewind      files of the checkpoint linked | pending and hibernation in the state | VM ended | pending cleared | wake
 *
 * Invariant: as soon as the state says `hibernation`, what counts is in `saved/`, and whatever VM there is may be ended; but for one that
 * is being woken and runs already, which is gone on with. Every other checkpoint in `saved/` is nobody's.
 */
import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import {
  checkSandboxOperation,
  hasErrno,
  hibernationLimits,
  isId,
  messageChain,
  newId,
  sandboxLimits,
  withDeadline,
} from "../base/index.ts";
import {
  CheckpointStore,
  capture,
  copyLogs,
  copyState,
  findLayers,
  type GuestMemory,
  planDisks,
  replaceDisks,
  type Snapshot,
  type StartedCopy,
  startCopy,
} from "../checkpoint/index.ts";
import { type Copies, type HostSandbox, type Outputs, removeOwnDisk, writtenDisks } from "../container/index.ts";
import { WaitingPorts } from "../network/index.ts";
import { abortable, type HibernationState, type Monitor, type SandboxIntent } from "../sandbox/index.ts";
import { systemDisk } from "../store/index.ts";
import { Activity } from "./activity.ts";
import { aboutCheckpoint } from "./checkpoint-info.ts";
import type { RuntimeDeps } from "./deps.ts";
import { openGuestImage } from "./guest-image.ts";
import { asleep, resumed, standing } from "./state-moves.ts";

export interface HibernationDeps {
  readonly runtime: RuntimeDeps;
  readonly sandbox: HostSandbox;
  readonly outputs: Outputs;
  readonly copies: Copies;
  readonly memory: GuestMemory;
  readonly monitor: Monitor;
  /** Its VM is about to end. */
  readonly letGo: () => Promise<void>;
  /** Its VM is looked after from now on, and what runs in it. */
  readonly takeUp: (introduced: Promise<void> | undefined) => Promise<void>;
}

export interface HibernateOptions {
  readonly signal?: AbortSignal | undefined;
  /** Looked at in the sandbox's turn: nothing is done when the answer is no. */
  readonly ifStill?: (() => boolean) | undefined;
}

export interface RewindTarget {
  readonly dir: string;
  readonly keepExec: boolean;
}

export class Hibernation {
  readonly activity: Activity;
  readonly #deps: HibernationDeps;
  readonly #store: CheckpointStore;
  #ports: WaitingPorts | undefined;
  #waking: Promise<void> | undefined;

  constructor(deps: HibernationDeps) {
    this.#deps = deps;
    this.#store = new CheckpointStore(deps.sandbox.savedDir, deps.runtime.disk ?? systemDisk);
    this.activity = new Activity(deps.runtime.clock);
  }

  /** It is awake while this is done, which begins at once in one that is. @throws BelljarError what a wake throws */
  awake<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const call = this.activity.call();
    const done = this.#hibernation === undefined ? work() : this.#wakeFirst(work, signal);
    return done.finally(() => call[Symbol.dispose]());
  }

  /** @throws BelljarError `INVALID_TRANSITION`, `NOT_CHECKPOINTABLE`, what a checkpoint throws; it goes on then */
  async hibernate({ signal, ifStill }: HibernateOptions = {}): Promise<boolean> {
    const { sandbox } = this.#deps;
    if (ifStill === undefined) await this.activity.callsEnd(hibernationLimits.callsEndTimeoutMs);
    return await sandbox.exclusive(
      "hibernate",
      async () => {
        if (this.#hibernation !== undefined) return true;
        checkSandboxOperation("hibernate", sandbox.state.state, sandbox.id);
        if (ifStill?.() === false) return false;
        await this.#intend("hibernate");
        await this.#deps.monitor.stop();
        try {
          await this.#save(signal);
        } catch (error) {
          await sandbox.update((state) => ({ ...state, pending: undefined }), { force: true });
          this.#deps.monitor.start();
          await this.#sweep().catch((left: unknown) => this.#warn("what a sandbox did not sleep in is left", left));
          throw error;
        }
        await this.#letGo();
        return true;
      },
      { signal },
    );
  }

  /** Whoever asks, it wakes once. Nothing to do for one that is awake. */
  async wake(signal?: AbortSignal): Promise<void> {
    const { sandbox } = this.#deps;
    this.#waking ??= sandbox
      .exclusive("wake", () => this.#wake())
      .finally(() => {
        this.#waking = undefined;
      });
    await abortable(this.#waking, signal);
  }

  /**
   * In the sandbox's turn: it goes on from these files, which are looked at before anything is ended.
   * @throws BelljarError what a wake throws; it is hibernated at the checkpoint then, and the next wake tries again
   */
  async rewind({ dir, keepExec }: RewindTarget): Promise<void> {
    const { sandbox, runtime } = this.#deps;
    const saved = await this.#store.adopt(dir);
    const { network, settings, hibernation } = sandbox.state;
    const ports = hibernation?.ports ?? network?.ports ?? settings.network?.ports ?? [];
    const next: HibernationState = { saved, sinceMs: runtime.clock.nowMs(), ports, rewound: true, keepExec };
    await this.#deps.monitor.stop();
    await this.#ports?.letGo();
    // One that has stopped is taken as if it stood still, which it does.
    await sandbox.update((state) => ({
      ...state,
      pending: this.#pending("rewind"),
      hibernation: next,
      generation: state.generation + 1,
    }));
    await this.#letGo();
    await this.#wake();
  }

  /**
   * Of one whose owner has died: what stands in the state is finished, or, before it stood there, undone.
   * @returns whether it is hibernated now; otherwise it is gone on with as with every other
   */
  async recover(): Promise<"hibernated" | "unfinished" | undefined> {
    const { sandbox } = this.#deps;
    const { hibernation, pending } = sandbox.state;
    if (hibernation !== undefined && pending?.operation === "wake" && (await this.#runsAlready(hibernation))) {
      await sandbox.update((state) => ({ ...resumed(state), workloadFrozen: true, hibernation: undefined }));
    }
    await this.#sweep();
    if (this.#hibernation === undefined) return undefined;
    await this.#letGo();
    return pending?.operation === "wake" || pending?.operation === "rewind" ? "unfinished" : "hibernated";
  }

  /** It is no more, or has stopped. */
  async forget(): Promise<void> {
    await this.close();
    await rm(this.#store.dir, { recursive: true, force: true });
  }

  async close(): Promise<void> {
    await this.#ports?.close();
    this.#ports = undefined;
  }

  async #wakeFirst<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    while (this.#hibernation !== undefined) await this.wake(signal);
    return await work();
  }

  get #hibernation(): HibernationState | undefined {
    return this.#deps.sandbox.state.hibernation;
  }

  async #save(signal: AbortSignal | undefined): Promise<void> {
    const { sandbox, outputs, memory, runtime } = this.#deps;
    const id = newId();
    await using draft = await this.#store.begin(id, id);
    const captured = await capture({ sandbox, outputs, memory, clock: runtime.clock }, draft.dir, {
      signal,
      stay: true,
    });
    try {
      const linked = await draft.link(captured.snapshot);
      await captured.written;
      const about = await aboutCheckpoint(runtime, { id, name: id }, captured);
      await draft.publish(captured.snapshot, linked, about);
      const ports = sandbox.state.network?.ports ?? [];
      const hibernation: HibernationState = { saved: id, sinceMs: runtime.clock.nowMs(), ports };
      await sandbox.update((state) => ({ ...state, hibernation }));
    } catch (error) {
      await captured.goOn();
      throw error;
    }
  }

  /** The state says that it is hibernated: what VM there is ends, and it is waited for somebody. */
  async #letGo(): Promise<void> {
    const { sandbox, outputs, copies } = this.#deps;
    // Whoever waits for something of the guest waits on, instead of failing with its end.
    await sandbox.update(standing, { force: true });
    await this.#deps.letGo();
    await outputs.suspend();
    await copies.stopAll();
    await sandbox.endVm({ keepDevices: true });
    await sandbox.update(asleep, { force: true });
    await this.#listen();
  }

  async #wake(): Promise<void> {
    const { sandbox } = this.#deps;
    const { hibernation } = sandbox.state;
    if (hibernation === undefined) return;
    await this.#intend("wake");
    await this.#ports?.letGo();
    let started: StartedCopy;
    try {
      const { snapshot } = await this.#store.open(hibernation.saved);
      await this.#place(snapshot, hibernation);
      const guestImage = await openGuestImage(this.#deps.runtime.guestImages, snapshot.state.guestImage);
      const how = hibernation.rewound === true ? "restored" : "resumed";
      const keepExec = hibernation.rewound !== true || hibernation.keepExec === true;
      const { memory } = this.#deps;
      started = await startCopy({ sandbox, memory, guestImage }, snapshot, { event: how, keepExec });
    } catch (error) {
      await this.#letGo();
      throw error;
    }
    // Its containers run: from here on there is no way back.
    await sandbox.update((state) => ({ ...resumed(state), hibernation: undefined, pending: undefined }), {
      force: true,
    });
    this.activity.touch();
    await this.#deps.takeUp(started.isIntroduced ? undefined : sandbox.agent());
    await this.#sweep().catch((error: unknown) => this.#warn("what a sandbox has woken from is left", error));
  }

  /** Its files, and of one that goes back its containers too, become those of the snapshot. */
  async #place(snapshot: Snapshot, { rewound, keepExec }: HibernationState): Promise<void> {
    const { sandbox, outputs, runtime } = this.#deps;
    const { state } = sandbox;
    await replaceDisks(snapshot.disks, sandbox.disksDir);
    if (rewound !== true) return;
    const layers = await findLayers(snapshot, join(runtime.rootDir, "images/layers"), sandbox.disksDir);
    const paths = new Map([...planDisks(snapshot.disks, sandbox.disksDir), ...layers.paths]);
    const { id, name, createdAtMs, runDir, settings } = state;
    const identity = { id, name, hostname: settings.hostname, createdAtMs, runDir, keepExec: keepExec === true };
    const source = { ...snapshot.state, settings: { ...snapshot.state.settings, network: undefined } };
    const { first } = copyState(source, identity, paths);
    // Of containers that were made since.
    const kept = new Set(snapshot.disks.map(({ serial }) => serial));
    for (const { serial, path } of writtenDisks(state.containers)) if (!kept.has(serial)) await removeOwnDisk(path);
    for (const { id: containerId } of state.containers) await outputs.forget(containerId);
    await copyLogs(snapshot.logs, sandbox.logsDir);
    sandbox.devices.replace(first.devices ?? []);
    await sandbox.update((now) => ({
      ...now,
      containers: first.containers.map((each) => (each.state === "running" ? { ...each, state: "paused" } : each)),
      end: undefined,
      guestImage: first.guestImage,
    }));
  }

  /** The VM of a wake that was cut short: its CPUs were let run, so that something of it may be known outside. */
  async #runsAlready({ rewound }: HibernationState): Promise<boolean> {
    const { sandbox } = this.#deps;
    // Nobody was told that it has gone back.
    if (rewound === true || sandbox.state.vm === undefined) return false;
    try {
      return await withDeadline({ timeoutMs: sandboxLimits.recoveryVmmTimeoutMs, what: "the VMM" }, async () => {
        await sandbox.attach([]);
        return (await sandbox.machine.vm.info()).status === "running";
      });
    } catch (error) {
      this.#warn("a VM that was being woken does not answer, and is ended", error);
      return false;
    }
  }

  async #listen(): Promise<void> {
    await this.#ports?.letGo();
    const { sandbox } = this.#deps;
    const ports = this.#hibernation?.ports ?? [];
    if (ports.length === 0 || sandbox.gone.aborted) return;
    this.#ports = new WaitingPorts({ ports, onKnock: () => this.wake(), log: sandbox.log });
    await this.#ports.open();
  }

  /** Removes what is in `saved/` and not in the state, and the directory of one that is awake. */
  async #sweep(): Promise<void> {
    await this.#store.sweep();
    const names = await readdir(this.#store.dir).catch((error: unknown) => {
      if (hasErrno(error, "ENOENT")) return [];
      throw error;
    });
    for (const name of names) if (isId(name) && name !== this.#hibernation?.saved) await this.#store.remove(name);
    if (this.#hibernation !== undefined) return;
    await rmdir(this.#store.dir).catch((error: unknown) => {
      // What is not ours stays.
      if (!hasErrno(error, "ENOENT") && !hasErrno(error, "ENOTEMPTY")) throw error;
    });
  }

  async #intend(operation: SandboxIntent): Promise<void> {
    await this.#deps.sandbox.update((state) => ({ ...state, pending: this.#pending(operation) }));
  }

  #pending(operation: SandboxIntent): { operation: SandboxIntent; sinceMs: number } {
    return { operation, sinceMs: this.#deps.runtime.clock.nowMs() };
  }

  #warn(message: string, error: unknown): void {
    this.#deps.sandbox.log.warn(message, { cause: messageChain(error).join(": ") });
  }
}
