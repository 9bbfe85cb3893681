/** Checkpoints of one root: taken, listed, restored, removed; and forks, which are checkpoints that nobody keeps. */
import { basename, join } from "node:path";
import { BelljarError, checkName, checkpointLimits, messageChain, newId } from "../base/index.ts";
import {
  type CheckpointState,
  CheckpointStore,
  checkpointDigest,
  type FoundCheckpoint,
  isError,
  joinOverlays,
  layOver,
  laySnapshot,
  packPages,
  prepareCommands,
  renameContainers,
  type Snapshot,
  warmSnapshot,
} from "../checkpoint/index.ts";
import { copiedNetwork } from "../network/index.ts";
import type { WaitingCopy } from "../sandbox/index.ts";
import { systemDisk } from "../store/index.ts";
import { aboutCheckpoint, checkpointInfo, unreadableCheckpointInfo } from "./checkpoint-info.ts";
import type { CheckpointMoves, CheckpointsDeps } from "./checkpoint-moves.ts";
import { CheckpointUses } from "./checkpoint-uses.ts";
import { CheckpointWaits } from "./checkpoint-waits.ts";
import { type CopyWish, makeCopy } from "./copies.ts";
import { type CopyRoom, forRestore } from "./copy-rooms.ts";
import { settleForkOptions } from "./fork-options.ts";
import { ForkRoom } from "./fork-room.ts";
import type {
  CallOptions,
  CheckpointInfo,
  CheckpointOptions,
  Checkpoints,
  ForkOptions,
  RestoreOptions,
  RestoreReport,
  RewindOptions,
  SandboxHandle,
} from "./interface.ts";
import type { Trails } from "./keeper.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";
import { findNamed } from "./names.ts";
import { type CheckedCheckpoint, findMismatches } from "./restore-check.ts";
import { type OpenSession, RestoreSessions } from "./restore-sessions.ts";
import { newIds } from "./restored-containers.ts";
import { checkOwn, checkpointsOf, latestBefore } from "./rewind-target.ts";
import { RuntimeSandbox } from "./sandbox-handle.ts";
import { findTemplate, type TemplateStart } from "./template-start.ts";

export class RuntimeCheckpoints implements Checkpoints, CheckpointMoves {
  readonly #deps: CheckpointsDeps;
  readonly #store: CheckpointStore;
  readonly #uses = new CheckpointUses();
  readonly #waits = new CheckpointWaits();
  readonly #sessions = new RestoreSessions();
  /** Disks that are being joined, by their sandbox. */
  readonly #joining = new Map<string, Promise<void>>();
  readonly #closing = new AbortController();

  constructor(deps: CheckpointsDeps) {
    const { rootDir, disk = systemDisk } = deps.runtime;
    this.#deps = deps;
    this.#store = new CheckpointStore(join(rootDir, "checkpoints"), disk);
  }

  create(managed: ManagedSandbox, options: CheckpointOptions): Promise<CheckpointInfo> {
    return this.#waits.telling(managed.sandbox.id, () => this.#create(managed, options));
  }

  async wait({ sandbox }: ManagedSandbox, { signal }: CallOptions): Promise<CheckpointInfo> {
    const over = signal === undefined ? sandbox.gone : AbortSignal.any([sandbox.gone, signal]);
    return await this.#waits.wait(sandbox.id, over);
  }

  async #create(
    managed: ManagedSandbox,
    { name, stop, asTemplate, compress, signal }: CheckpointOptions,
    trail = false,
  ): Promise<CheckpointInfo> {
    const id = newId();
    const checked = name === undefined ? id : checkName(name, "the name of the checkpoint");
    const { runtime, memory } = this.#deps;
    if (asTemplate === true && compress === true) {
      throw new BelljarError("INVALID_ARGUMENT", "the memory of a template is shared, and cannot be packed");
    }
    await using draft = await this.#store.begin(id, checked);
    if (asTemplate === true) await prepareCommands(managed.sandbox, signal);
    const { captured, linked } = await managed.capture(draft.dir, ({ snapshot }) => draft.link(snapshot), signal);
    // It runs again: the rest takes the time that it takes.
    await captured.written;
    const isTemplate = asTemplate === true;
    const taken = captured.snapshot;
    let snapshot = isTemplate ? await warmSnapshot(memory, taken, draft.dir, signal) : taken;
    if (compress === true) snapshot = await packPages(snapshot, draft.dir, signal);
    const about = await aboutCheckpoint(runtime, { id, name: checked, isTemplate, trail }, { ...captured, snapshot });
    const state = await draft.publish(snapshot, linked, about);
    if (stop === true) await managed.stop({ force: true });
    this.#joinLater(managed);
    return await this.#info(state);
  }

  async rewind(managed: ManagedSandbox, options: RewindOptions): Promise<CheckpointInfo> {
    const { checkpoint, beforeMs = Number.POSITIVE_INFINITY, keepExec = false, signal } = options;
    const { id } = managed.sandbox;
    const target =
      checkpoint === undefined
        ? latestBefore(checkpointsOf(await this.#store.list(), id), id, beforeMs)
        : await this.#readable(checkpoint);
    checkOwn(target, id);
    using _held = this.#uses.hold(target.id);
    await this.#checkFits(target, { signal });
    await managed.rewind({ dir: this.#store.dirOf(target.id), keepExec }, signal);
    return await this.#info(target);
  }

  /** What sandboxes leave behind by themselves. */
  readonly trails: Trails = {
    take: async (id) => {
      const managed = this.#deps.find(id);
      await this.#waits.telling(id, () => this.#create(managed, {}, true));
      const trail = checkpointsOf(await this.#store.list(), id).filter((each) => each.trail === true);
      const tooMany = trail.slice(0, Math.max(0, trail.length - (managed.state.settings.trail?.keep ?? trail.length)));
      for (const each of tooMany) if (!this.#uses.isHeld(each.id)) await this.#store.remove(each.id);
    },
    lastMs: async (id) => {
      const own = checkpointsOf(await this.#store.list(), id);
      return own.findLast(({ trail }) => trail === true)?.createdAtMs;
    },
    goBack: async (id) => {
      if (checkpointsOf(await this.#store.list(), id).length === 0) return false;
      await this.rewind(this.#deps.find(id), {});
      return true;
    },
  };

  /** Of one that the owner before has left with many files over a disk. */
  takeUp(managed: ManagedSandbox): void {
    const disks = managed.state.vm?.disks ?? [];
    // And what they lie over.
    const most = Math.max(0, ...disks.map(({ overlays = 0, joined = 0 }) => overlays - joined + 1));
    if (most >= checkpointLimits.overlaysJoined) this.#joinLater(managed);
  }

  /** Nobody waits for it; the next checkpoint or fork begins it again when it fails. */
  #joinLater({ sandbox }: ManagedSandbox): void {
    if (this.#joining.has(sandbox.id)) return;
    const over = AbortSignal.any([sandbox.gone, this.#closing.signal]);
    const joining = joinOverlays(sandbox, over)
      .catch((error: unknown) => {
        if (over.aborted) return;
        sandbox.log.warn("the files of a disk could not be joined", { cause: messageChain(error).join(": ") });
      })
      .then(() => void this.#joining.delete(sandbox.id));
    this.#joining.set(sandbox.id, joining);
  }

  async fork(managed: ManagedSandbox, options: ForkOptions | number): Promise<readonly SandboxHandle[]> {
    try {
      return await this.#fork(managed, options);
    } finally {
      // Like a checkpoint it has put a file over each disk, whatever became of the copies.
      this.#joinLater(managed);
    }
  }

  /** All or nothing: when one cannot be made, none stays. */
  async #fork(managed: ManagedSandbox, options: ForkOptions | number): Promise<readonly SandboxHandle[]> {
    const { names, keepExec, signal } = settleForkOptions(options);
    // What cannot be copied is told before the source is stopped for a moment.
    copiedNetwork(managed.state.settings.network);
    const count = names.length;
    for (const name of names) {
      if (name !== undefined && !this.#deps.isNameFree(name)) {
        throw new BelljarError("SANDBOX_EXISTS", `there is a sandbox ${name} already`, { facts: { name } });
      }
    }
    const { memory, runtime } = this.#deps;
    await using room = await ForkRoom.open(runtime, managed.state, count);
    await using draft = await this.#store.begin(newId(), newId());
    const { captured } = await managed.capture(draft.dir, ({ snapshot }) => draft.link(snapshot), signal);
    await captured.written;
    const { dir } = draft;
    const { snapshot: own } = captured;
    const disks = own.disks.map(({ serial, files }) => ({
      serial,
      files: files.map((path) => join(dir, "disks", basename(path))),
    }));
    const linked = { ...own, disks };
    await room.settle(linked);
    const lay = (): Promise<Snapshot> =>
      room.canvasPath === undefined
        ? laySnapshot(memory, linked, join(dir, "memory"), signal)
        : layOver(memory, linked, room.canvasPath);
    const snapshot = count === 1 ? linked : await lay();
    const made = new Map<number, ManagedSandbox>();
    using _batch = count > 1 ? this.#deps.introductions.batch() : undefined;
    const waiting = names.entries();
    const failures: unknown[] = [];
    const work = async (): Promise<void> => {
      for (const [index, name] of waiting) {
        if (failures.length > 0) return;
        try {
          made.set(
            index,
            await this.#copy(
              { snapshot, name, keepExec, isOneOfMany: count > 1, event: "forked", signal },
              room.waiting,
              room.begin(),
            ),
          );
        } catch (error) {
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(count, checkpointLimits.copiesAtOnce) }, work));
    if (failures.length > 0) {
      await Promise.allSettled([...made.values()].map((copy) => copy.delete({ force: true })));
      throw failures[0];
    }
    room.want();
    const inOrder = [...made].sort(([one], [other]) => one - other);
    return inOrder.map(([, copy]) => new RuntimeSandbox(copy, this, true));
  }

  async list(): Promise<readonly CheckpointInfo[]> {
    const infos: CheckpointInfo[] = [];
    for (const { id, state } of await this.#store.list()) {
      infos.push(isError(state) ? unreadableCheckpointInfo(id, state) : await this.#info(state));
    }
    return infos;
  }

  async get(nameOrId: string): Promise<CheckpointInfo> {
    const { id, state } = await this.#find(nameOrId);
    return isError(state) ? unreadableCheckpointInfo(id, state) : await this.#info(state);
  }

  async restore(nameOrId: string, options: RestoreOptions = {}): Promise<SandboxHandle> {
    return new RuntimeSandbox(await this.#restore(await this.#readable(nameOrId), "restored", options), this, true);
  }

  async begin(nameOrId: string, options: Omit<RestoreOptions, "containers"> = {}): Promise<OpenSession> {
    const found = await this.#readable(nameOrId);
    return this.#sessions.begin({
      clock: this.#deps.runtime.clock,
      expected: found.containers.map(({ name }) => name),
      restore: async (containers, signal) => {
        const made = await this.#restore(found, "restored", { ...options, containers, signal });
        return new RuntimeSandbox(made, this, false);
      },
    });
  }

  async session(id: string): Promise<OpenSession> {
    return this.#sessions.get(id);
  }

  /** A sandbox of a template that was made of one. @throws BelljarError `TEMPLATE_NOT_FOUND`, and what `restore` throws */
  async start(nameOrDigest: string, options: TemplateStart): Promise<SandboxHandle> {
    const templates = (await this.#store.list())
      .flatMap(({ state }) => (isError(state) || state.isTemplate !== true ? [] : [state]))
      .map((state) => ({ id: state.id, name: state.name, digest: checkpointDigest(state), state }));
    const { state } = findTemplate(templates, nameOrDigest);
    return new RuntimeSandbox(await this.#restore(state, "forked", options), this, true);
  }

  async #restore(found: CheckpointState, event: CopyWish["event"], options: TemplateStart): Promise<ManagedSandbox> {
    using _held = this.#uses.hold(found.id);
    const { findings, opened } = await this.#checkFits(found, options);
    const { signal, name, hostname, ports, network, keepExec = false, stopWithMain, autoRemove } = options;
    for (const { what, detail } of findings.filter(({ what: each }) => each === "specification")) {
      this.#deps.runtime.log.warn("restored in spite of a difference", { what, detail });
    }
    const snapshot = renameContainers(opened.snapshot, newIds(opened.snapshot.state, options.containers));
    const ends = { stopWithMain, autoRemove };
    const wish = { snapshot, name, hostname, ports, network, keepExec, ends, event, signal };
    const waitingRoom = await forRestore(this.#deps, this.#store, { id: found.id, snapshot, ports, network });
    const copy = await this.#copy(wish, waitingRoom);
    waitingRoom?.want();
    return copy;
  }

  /** @throws BelljarError `CHECKPOINT_MISMATCH` */
  async #checkFits(
    found: CheckpointState,
    options: RestoreOptions,
  ): Promise<CheckedCheckpoint & { readonly opened: NonNullable<CheckedCheckpoint["opened"]> }> {
    const { findings, opened } = await this.#findMismatches(found, options);
    const wrong = findings.filter(({ fits }) => !fits);
    if (wrong.length > 0) {
      const details = wrong.map(({ what, detail }) => `${what}: ${detail}`);
      throw new BelljarError(
        "CHECKPOINT_MISMATCH",
        `the checkpoint ${found.name} does not fit: ${details.join("; ")}`,
        {
          facts: { findings: details },
        },
      );
    }
    if (opened === undefined) throw new BelljarError("INTERNAL", "a checkpoint that fits was not opened");
    return { findings, opened };
  }

  async check(nameOrId: string, options: RestoreOptions = {}): Promise<RestoreReport> {
    return await this.#check(await this.#readable(nameOrId), options);
  }

  async verify(nameOrId: string, { signal }: CallOptions = {}): Promise<CheckpointInfo> {
    const { id } = await this.#find(nameOrId);
    return await this.#info(await this.#store.verify(id, signal, true));
  }

  async remove(nameOrId: string): Promise<CheckpointInfo> {
    const { id, state } = await this.#find(nameOrId);
    const info = isError(state) ? unreadableCheckpointInfo(id, state) : await this.#info(state);
    this.#uses.checkUnused(id, info.name);
    await this.#deps.runtime.standbys?.drop(id);
    await this.#store.remove(id);
    return info;
  }

  sweep(): Promise<readonly string[]> {
    return this.#store.sweep();
  }

  async release(): Promise<void> {
    this.#closing.abort(new BelljarError("CANCELLED", "the runtime was closed"));
    await Promise.all(this.#joining.values());
    await this.#sessions.end();
    // One that was handed in is somebody else's to close.
    if (this.#deps.runtime.memory === undefined) await this.#deps.memory.close();
  }

  async #check(state: CheckpointState, options: RestoreOptions): Promise<RestoreReport> {
    const { findings } = await this.#findMismatches(state, options);
    return { fits: findings.every(({ fits }) => fits), findings };
  }

  #findMismatches(state: CheckpointState, options: RestoreOptions): Promise<CheckedCheckpoint> {
    const isNameFree = options.name === undefined || this.#deps.isNameFree(options.name);
    return findMismatches(this.#deps.runtime, this.#store, state, { ...options, isNameFree });
  }

  async #copy(
    wish: Omit<CopyWish, "id" | "name"> & { readonly name?: string | undefined },
    waitingRoom: CopyRoom | undefined,
    id = waitingRoom?.idFor() ?? newId(),
  ): Promise<ManagedSandbox> {
    const takeWaiting = waitingRoom && ((): WaitingCopy | undefined => waitingRoom.take(id));
    try {
      const name = wish.name === undefined ? id : checkName(wish.name, "the name");
      const make = (signal: AbortSignal): Promise<ManagedSandbox> =>
        makeCopy(this.#deps, { ...wish, id, name, takeWaiting, signal });
      return await this.#deps.make(name, make, wish.signal);
    } catch (error) {
      await waitingRoom?.giveBack(id);
      throw error;
    }
  }

  async #find(nameOrId: string): Promise<FoundCheckpoint> {
    const all = (await this.#store.list()).map((found) => {
      const { id, state } = found;
      return { id, name: isError(state) ? id : state.name, found };
    });
    return findNamed(all, nameOrId, "checkpoint", "CHECKPOINT_NOT_FOUND", "CHECKPOINT_AMBIGUOUS").found;
  }

  async #readable(nameOrId: string): Promise<CheckpointState> {
    const { state } = await this.#find(nameOrId);
    if (isError(state)) throw state;
    return state;
  }

  async #info(state: CheckpointState): Promise<CheckpointInfo> {
    const memoryBytes = state.isTemplate === true ? await this.#store.memoryBytes(state.id) : undefined;
    return checkpointInfo(state, await this.#store.diskBytes(state.id), memoryBytes);
  }
}
