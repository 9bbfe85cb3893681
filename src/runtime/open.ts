/**
 * The runtime of one root in this process: takes the root's lock, recovers what it finds, and then serves `Sandboxes`. Nothing is
 * held that is not also on disk or in a guest: it may be killed at any instant, and the next one goes on.
 */
import { mkdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { BelljarError, messageChain, newId, Places, sandboxLimits } from "../base/index.ts";
import { createGuestMemory, type GuestMemory } from "../checkpoint/index.ts";
import { sweepBlanks } from "../container/index.ts";
import { openNetworks } from "../network/index.ts";
import { isAtRest, Sandbox, settleSandboxConfig } from "../sandbox/index.ts";
import { acquireLock, type FileLock, sweepTemporaryFiles, systemDisk } from "../store/index.ts";
import { RuntimeCheckpoints } from "./checkpoints.ts";
import { blanksDir, createSandbox, sandboxDeps, vfioClaims } from "./create-sandbox.ts";
import type { RuntimeDeps } from "./deps.ts";
import { EventJournal } from "./event-journal.ts";
import { sandboxInfo, unreadableInfo } from "./info.ts";
import type {
  Checkpoints,
  SandboxCreateConfig,
  SandboxCreateOptions,
  Sandboxes,
  SandboxHandle,
  SandboxInfo,
  Volumes,
} from "./interface.ts";
import { Introductions } from "./introductions.ts";
import { findSandboxIds, findVmms, isRemoved, type Note, type Recovered, removeLeftovers } from "./leftovers.ts";
import { resolveLinks } from "./links.ts";
import { ManagedSandbox, type ManagedSandboxDeps } from "./managed-sandbox.ts";
import { findNamed } from "./names.ts";
import { poolKind } from "./pool-kind.ts";
import { finishWake, recoverLater, recoverSandbox } from "./recover.ts";
import { RuntimeSandbox } from "./sandbox-handle.ts";
import { settleTemplateStart } from "./template-start.ts";
import { RuntimeVolumes } from "./volumes.ts";

export interface RuntimeCore {
  readonly sandboxes: Sandboxes;
  readonly checkpoints: Checkpoints;
  readonly volumes: Volumes;
  /** What was found and what became of it. */
  readonly recovered: readonly Recovered[];
  /** Drops every handle and the root's lock; VMs run on. Idempotent. */
  release(): Promise<void>;
}

/** Another owner may just be ending. */
const ROOT_LOCK_TIMEOUT_MS = 500;

/** @throws BelljarError `ROOT_LOCKED` when another process owns the root */
export async function openRuntime(given: RuntimeDeps): Promise<RuntimeCore> {
  // One for all sandboxes: it knows what each of them has.
  const deps = { ...given, networks: given.networks ?? openNetworks(given) };
  const sandboxesDir = join(deps.rootDir, "sandboxes");
  for (const dir of [deps.rootDir, sandboxesDir, deps.runDir]) await mkdir(dir, { recursive: true, mode: 0o700 });
  const lock = await lockRoot(deps);
  const disk = deps.disk ?? systemDisk;
  const journal = await EventJournal.open({ dir: deps.rootDir, disk, log: deps.log });
  const runtime = new Runtime(deps, lock, journal);
  try {
    await runtime.recover();
    return runtime;
  } catch (error) {
    await runtime.release();
    throw error;
  }
}

async function lockRoot(deps: RuntimeDeps): Promise<FileLock> {
  const lock = deps.lock ?? acquireLock;
  try {
    return await lock(join(deps.rootDir, "lock"), {
      mode: "exclusive",
      timeoutMs: ROOT_LOCK_TIMEOUT_MS,
      what: `the root ${deps.rootDir}`,
    });
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (error.reason !== "LOCKED") throw error;
    throw new BelljarError("ROOT_LOCKED", `another process owns the root ${deps.rootDir}`, {
      facts: { ...error.facts, root: deps.rootDir },
      cause: error,
    });
  }
}

class Runtime implements RuntimeCore {
  readonly sandboxes: Sandboxes;
  readonly volumes: RuntimeVolumes;
  readonly checkpoints: RuntimeCheckpoints;
  readonly recovered: Recovered[] = [];
  readonly #memory: GuestMemory;
  readonly #deps: RuntimeDeps;
  readonly #lock: FileLock;
  readonly #journal: EventJournal;
  readonly #managed = new Map<string, ManagedSandbox>();
  /** Sandboxes whose state cannot be read, and why. */
  readonly #unreadable = new Map<string, BelljarError>();
  /** Names and ids of sandboxes that are being made. */
  readonly #reserved = new Set<string>();
  /** Creations under way; they are undone before the runtime is let go. */
  readonly #creating = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();
  readonly #recoveryPlaces = new Places(availableParallelism() * sandboxLimits.recoveryAgentsPerCpu);
  #released: Promise<void> | undefined;

  constructor(deps: RuntimeDeps, lock: FileLock, journal: EventJournal) {
    this.#deps = deps;
    this.#lock = lock;
    this.#journal = journal;
    this.volumes = new RuntimeVolumes({
      runtime: deps,
      sandboxes: () => this.#managed.values(),
      unreadable: () => this.#unreadable.keys(),
    });
    this.#memory = deps.memory ?? createGuestMemory();
    this.checkpoints = new RuntimeCheckpoints({
      runtime: deps,
      memory: this.#memory,
      introductions: new Introductions(deps.clock),
      make: (name, work, signal) => this.#make(name, work, signal),
      managed: () => this.#managedDeps(),
      onMade: (managed) => void this.#managed.set(managed.sandbox.id, managed),
      find: (id) => this.#find(id),
      isNameFree: (name) => this.#isNameFree(name),
    });
    this.sandboxes = {
      create: (config, options) => this.#create(config, options ?? {}),
      get: (nameOrId) => this.#get(nameOrId),
      list: () => this.#list(),
      events: (options) => {
        this.#checkOpen();
        return journal.watch(options ?? {});
      },
    };
  }

  async recover(): Promise<void> {
    const sandboxesDir = join(this.#deps.rootDir, "sandboxes");
    const vmms = await findVmms(this.#deps.runDir);
    const ids = await findSandboxIds(sandboxesDir, this.#note);
    const states = new Map<string, ManagedSandbox>();
    const waiting = ids.values();
    const readAll = async (): Promise<void> => {
      for (const id of waiting) {
        const managed = await this.#read(id);
        if (managed !== undefined) states.set(id, managed);
      }
    };
    await Promise.all(Array.from({ length: sandboxLimits.recoveryReadsMax }, readAll));
    // Before anything is done to sandboxes: a VM that its sandbox does not know stands in the way of a new one.
    await removeLeftovers(
      { ...this.#deps, cgroups: sandboxDeps(this.#deps).cgroups },
      vmms,
      ({ id, identity }) => {
        if (this.#unreadable.has(id)) return true;
        const vmm = states.get(id)?.state.vm?.vmm;
        return vmm?.pid === identity.pid && vmm.startTicks === identity.startTicks;
      },
      new Set([...states.keys(), ...this.#unreadable.keys()]),
      this.#note,
    );
    for (const name of await this.volumes.sweep()) {
      this.#note("unfinished", name, "removed: a volume whose creation or removal had been cut short");
    }
    for (const name of await sweepBlanks(blanksDir(this.#deps.rootDir))) {
      this.#note("unfinished", name, "removed: an empty disk whose making had been cut short");
    }
    await Promise.all([...states.values()].map((managed) => this.#recoverOne(managed)));
    const known = new Set([...states.keys(), ...this.#unreadable.keys()]);
    const returned = await vfioClaims(this.#deps).recover(this.#deps.rootDir, (id) => known.has(id));
    for (const { group, what } of returned) this.#note("device", `IOMMU group ${group}`, what);
    const networked = [...states].filter(([, { state }]) => state.network !== undefined).map(([id]) => id);
    for (const id of await (this.#deps.networks?.sweep(new Set([...networked, ...this.#unreadable.keys()])) ?? [])) {
      this.#note("network", id, "removed: it belonged to no VM");
    }
    await this.#deps.templates?.sweep();
    for (const name of await this.checkpoints.sweep()) {
      this.#note("unfinished", name, "removed: a checkpoint whose creation or removal had been cut short");
    }
    for (const managed of this.#managed.values()) this.checkpoints.takeUp(managed);
  }

  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  readonly #note: Note = (kind, name, what) => {
    this.recovered.push({ kind, name, what });
    this.#deps.log.info("recovered", { kind, name, what });
  };

  async #release(): Promise<void> {
    this.#closing.abort(new BelljarError("CANCELLED", "the runtime was closed"));
    await Promise.allSettled([...this.#creating, this.#deps.templates?.stop()]);
    await Promise.all([this.#deps.pool?.stop(), this.#deps.spares?.stop(), this.#deps.standbys?.stop()]);
    await Promise.allSettled([...this.#managed.values()].map((managed) => managed.release()));
    await this.checkpoints.release();
    await this.#journal.close();
    await this.#lock.release();
  }

  /** What each sandbox is handed of the runtime. */
  #managedDeps(): ManagedSandboxDeps {
    return {
      runtime: this.#deps,
      mounts: this.volumes,
      memory: this.#memory,
      onDeleted: (id) => void this.#managed.delete(id),
      onEvent: (id, name, event) => this.#journal.add(id, name, event),
      reserveName: (name) => this.#reserveName(name),
      trails: this.checkpoints.trails,
    };
  }

  #find(id: string): ManagedSandbox {
    const found = this.#managed.get(id);
    if (found !== undefined) return found;
    throw new BelljarError("SANDBOX_NOT_FOUND", `there is no sandbox ${id} any more`);
  }

  #reserveName(name: string): Disposable {
    if (!this.#isNameFree(name)) {
      throw new BelljarError("SANDBOX_EXISTS", `there is a sandbox ${name} already`, { facts: { name } });
    }
    this.#reserved.add(name);
    return { [Symbol.dispose]: () => void this.#reserved.delete(name) };
  }

  #isNameFree(name: string): boolean {
    const taken = [...this.#managed.values()].some(({ state }) => state.name === name || state.id === name);
    return !taken && !this.#reserved.has(name) && !this.#unreadable.has(name);
  }

  async #read(id: string): Promise<ManagedSandbox | undefined> {
    const dir = join(this.#deps.rootDir, "sandboxes", id);
    try {
      const sandbox = await Sandbox.restore(sandboxDeps(this.#deps), id);
      await sweepTemporaryFiles(dir, this.#deps.disk);
      const managed = new ManagedSandbox(this.#managedDeps(), sandbox);
      this.#managed.set(id, managed);
      return managed;
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      if (error.reason === "STATE_MISSING" && (await isRemoved(dir))) {
        await rm(dir, { recursive: true, force: true });
        this.#note("unfinished", id, "removed: its removal had been cut short");
        return undefined;
      }
      this.#unreadable.set(id, error);
      this.#note("unreadable", id, `left as it is: ${error.message}`);
      return undefined;
    }
  }

  async #recoverOne(managed: ManagedSandbox): Promise<void> {
    const { sandbox } = managed;
    const before = managed.state;
    try {
      if (isAtRest(before) && !before.settings.autoRemove) {
        // Its end stood in its state before what it had slept in was removed.
        await managed.hibernation.forget();
        return managed.keep();
      }
      const outcome = await sandbox.exclusive("recover", () => recoverSandbox(managed, this.#recoveryPlaces), {
        evenWhenDeleting: true,
      });
      if (outcome === "live") await managed.takeUp();
      if (outcome === "waiting") void recoverLater(managed, this.#recoveryPlaces);
      if (outcome === "unfinished") void finishWake(managed);
      if (outcome === "stopped" && before.state === "stopped" && before.settings.autoRemove) await managed.delete();
      managed.keep();
      const isResting = outcome === "stopped" ? before.state === "stopped" : outcome === "hibernated";
      const isUnchanged = isResting && before.pending === undefined && before.vm === undefined;
      if (!isUnchanged) this.#note("sandbox", sandbox.id, outcome);
    } catch (error) {
      managed.problem = messageChain(error).join(": ");
      this.#note("sandbox", sandbox.id, `not recovered: ${managed.problem}`);
    }
  }

  async #create(config: SandboxCreateConfig, options: SandboxCreateOptions): Promise<SandboxHandle> {
    const { template } = config;
    if (typeof template === "string") {
      return await this.checkpoints.start(template, settleTemplateStart(config, options));
    }
    const { pool } = this.#deps;
    const kind = poolKind(config);
    const id = (kind === undefined ? undefined : pool?.idFor(kind)) ?? newId();
    try {
      const unlinked = settleSandboxConfig({ ...config, template }, id);
      const settled = await resolveLinks(unlinked, (name) => this.#named(name));
      const made = await this.#make(
        settled.name,
        (signal) =>
          createSandbox(
            this.#managedDeps(),
            id,
            settled,
            config,
            { ...options, signal },
            (managed) => void this.#managed.set(id, managed),
          ),
        options.signal,
      );
      return new RuntimeSandbox(made, this.checkpoints, true);
    } catch (error) {
      await pool?.giveBack(id);
      throw error;
    }
  }

  /** Makes a sandbox under a name that nobody else can take meanwhile; undone when the runtime is let go. */
  async #make<T>(name: string, work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    this.#checkOpen();
    using _reserved = this.#reserveName(name);
    const { signal: closing } = this.#closing;
    const making = work(signal === undefined ? closing : AbortSignal.any([closing, signal]));
    this.#creating.add(making);
    try {
      return await making;
    } finally {
      this.#creating.delete(making);
    }
  }

  async #get(nameOrId: string): Promise<SandboxHandle> {
    return new RuntimeSandbox(await this.#named(nameOrId), this.checkpoints, false);
  }

  async #named(nameOrId: string): Promise<ManagedSandbox> {
    this.#checkOpen();
    const known = [...this.#managed.values()].map((managed) => ({ id: managed.sandbox.id, name: managed.state.name }));
    const unreadable = [...this.#unreadable.keys()].map((id) => ({ id, name: id }));
    const { id } = findNamed([...known, ...unreadable], nameOrId, "sandbox", "SANDBOX_NOT_FOUND");
    const managed = this.#managed.get(id);
    if (managed === undefined) throw this.#unreadable.get(id) ?? new BelljarError("INTERNAL", `no sandbox ${id}`);
    return managed;
  }

  async #list(): Promise<readonly SandboxInfo[]> {
    this.#checkOpen();
    const infos = [...this.#managed.values()].map((managed) => sandboxInfo(managed.state, managed.problem));
    const problems = [...this.#unreadable].map(([id, error]) => unreadableInfo(id, error));
    return [...infos, ...problems].sort((a, b) => a.createdAtMs - b.createdAtMs || a.id.localeCompare(b.id));
  }

  #checkOpen(): void {
    if (this.#released !== undefined) throw new BelljarError("CANCELLED", "the runtime was closed");
  }
}
