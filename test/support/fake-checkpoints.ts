/** Checkpoints of fake sandboxes, which are copies of them: what is restored or forked has what the source had at that instant. */
import { BelljarError, cancelledError, newId, throwIfAborted } from "../../src/base/index.ts";
import {
  type CallOptions,
  type CheckpointInfo,
  type CheckpointOptions,
  type Checkpoints,
  type ForkOptions,
  type RestoredContainer,
  type RestoreFinding,
  type RestoreOptions,
  type RestoreReport,
  type RestoreSession,
  type SandboxHandle,
  type SandboxInfo,
  settleForkOptions,
} from "../../src/runtime/index.ts";

export interface CopyOptions {
  readonly name?: string | undefined;
  readonly hostname?: string | undefined;
  readonly keepExec?: boolean | undefined;
  /** The next unless told. */
  readonly generation?: number | undefined;
}

export interface FakeSource<S> {
  readonly id: string;
  info(): SandboxInfo;
  /** Another sandbox, of the next generation, that has what this one has now. */
  copy(options: CopyOptions): S;
}

/** The sandboxes of the runtime that the checkpoints are of. */
export interface FakeSandboxes<S> {
  add(sandbox: S): SandboxHandle;
  end(source: S): void;
}

interface Taken<S> {
  info: CheckpointInfo;
  readonly frozen: S;
}

export class FakeCheckpoints<S extends FakeSource<S>> implements Checkpoints {
  readonly all = new Map<string, Taken<S>>();
  /** Each call that makes or reads something waits for this. */
  hold: Promise<void> | undefined;
  /** Calls do not notice that nobody wants them any more. */
  isDeaf = false;
  waiting = 0;
  cancelled = 0;
  /** Sandboxes that were restored or forked. */
  made = 0;
  /** What does not fit this host. */
  misfits: readonly RestoreFinding[] = [];
  /** Containers that were given one by one. */
  readonly given: RestoredContainer[] = [];
  readonly #sandboxes: FakeSandboxes<S>;
  readonly #next = new Map<string, PromiseWithResolvers<CheckpointInfo>>();
  readonly #sessions = new Map<string, RestoreSession>();

  constructor(sandboxes: FakeSandboxes<S>) {
    this.#sandboxes = sandboxes;
  }

  async create(
    source: S,
    { name, stop = false, asTemplate = false, compress = false, signal }: CheckpointOptions,
  ): Promise<CheckpointInfo> {
    await this.#wait(signal);
    const id = newId();
    if (name !== undefined && [...this.all.values()].some(({ info }) => info.name === name)) {
      throw new BelljarError("CHECKPOINT_EXISTS", `there is a checkpoint ${name} already`);
    }
    const info = {
      ...infoOf(id, name ?? id, source.info()),
      ...(asTemplate ? { isTemplate: true } : {}),
      ...(compress ? { compression: "zstd" as const } : {}),
    };
    this.all.set(id, { info, frozen: source.copy({ keepExec: true, generation: info.source.generation }) });
    if (stop) this.#sandboxes.end(source);
    this.#next.get(source.id)?.resolve(info);
    return info;
  }

  async fork(source: S, options: ForkOptions | number): Promise<readonly SandboxHandle[]> {
    const { names, keepExec, signal } = settleForkOptions(options);
    await this.#wait(signal);
    return names.map((name) => this.#add(source.copy({ name, keepExec })));
  }

  async list(): Promise<readonly CheckpointInfo[]> {
    return [...this.all.values()].map(({ info }) => info);
  }

  async get(nameOrId: string): Promise<CheckpointInfo> {
    return this.find(nameOrId).info;
  }

  async restore(nameOrId: string, options: RestoreOptions = {}): Promise<SandboxHandle> {
    const { frozen } = this.find(nameOrId);
    await this.#wait(options.signal);
    const [misfit] = this.misfits;
    if (misfit !== undefined) throw new BelljarError("CHECKPOINT_MISMATCH", `${misfit.what}: ${misfit.detail}`);
    return this.#add(frozen.copy(options));
  }

  /** One at a time is waited for here. */
  async waitForNext(sandboxId: string, signal: AbortSignal | undefined): Promise<CheckpointInfo> {
    throwIfAborted(signal);
    const next = Promise.withResolvers<CheckpointInfo>();
    this.#next.set(sandboxId, next);
    signal?.addEventListener("abort", () => next.reject(cancelledError(signal)), { once: true });
    this.waiting += 1;
    return await next.promise.finally(() => {
      this.waiting -= 1;
    });
  }

  /** Begins when as many as the source had are given, whatever their names are. */
  async begin(nameOrId: string, options: RestoreOptions = {}): Promise<RestoreSession> {
    const { info } = this.find(nameOrId);
    const made = Promise.withResolvers<SandboxHandle>();
    made.promise.catch(() => {});
    const session: RestoreSession = {
      id: newId(),
      expected: info.containers.map(({ name }) => name),
      add: async (container) => {
        this.given.push(container);
        if (this.given.length === info.containers.length) made.resolve(await this.restore(nameOrId, options));
      },
      wait: () => made.promise,
      [Symbol.asyncDispose]: async () => void this.#sessions.delete(session.id),
    };
    this.#sessions.set(session.id, session);
    return session;
  }

  async session(id: string): Promise<RestoreSession> {
    const session = this.#sessions.get(id);
    if (session !== undefined) return session;
    throw new BelljarError("CHECKPOINT_NOT_FOUND", `there is no restore ${id}`);
  }

  async start(template: string, { name, hostname }: CopyOptions): Promise<SandboxHandle> {
    return this.#add(this.find(template).frozen.copy({ name, hostname }));
  }

  async check(nameOrId: string, { signal, ...options }: RestoreOptions = {}): Promise<RestoreReport> {
    const { info } = this.find(nameOrId);
    await this.#wait(signal);
    const { name, hostname, keepExec, containers, specValidation } = options;
    const asked = JSON.stringify({ name, hostname, keepExec, containers, specValidation });
    const findings = [
      { what: "hypervisor", fits: true, detail: info.hypervisor },
      { what: "name", fits: true, detail: asked },
      ...this.misfits,
    ];
    return { fits: findings.every(({ fits }) => fits), findings };
  }

  async verify(nameOrId: string, { signal }: CallOptions = {}): Promise<CheckpointInfo> {
    const { info } = this.find(nameOrId);
    await this.#wait(signal);
    if (info.problem !== undefined) throw new BelljarError("CHECKPOINT_CORRUPT", info.problem);
    return info;
  }

  async remove(nameOrId: string): Promise<CheckpointInfo> {
    const { info } = this.find(nameOrId);
    this.all.delete(info.id);
    return info;
  }

  find(nameOrId: string): Taken<S> {
    const found = [...this.all.values()].find(({ info }) => info.id === nameOrId || info.name === nameOrId);
    if (found !== undefined) return found;
    throw new BelljarError("CHECKPOINT_NOT_FOUND", `there is no checkpoint ${JSON.stringify(nameOrId)}`);
  }

  #add(sandbox: S): SandboxHandle {
    this.made += 1;
    return this.#sandboxes.add(sandbox);
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    if (this.hold === undefined) return;
    const { promise: gone, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => {
      if (this.isDeaf) return;
      this.cancelled += 1;
      reject(cancelledError(signal));
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.waiting += 1;
    try {
      await Promise.race([this.hold, gone]);
    } finally {
      this.waiting -= 1;
      signal?.removeEventListener("abort", onAbort);
    }
  }
}

function infoOf(id: string, name: string, source: SandboxInfo): CheckpointInfo {
  return {
    id,
    name,
    createdAtMs: 1_700_000_001_000,
    source: { id: source.id, name: source.name, generation: source.generation },
    state: source.state === "paused" ? "paused" : "running",
    image: source.image,
    containers: source.containers.map((each) => ({ id: each.id, name: each.name, image: each.image })),
    memoryMib: source.memoryMib,
    cpus: source.cpus,
    acceleration: "tcg",
    hypervisor: "QEMU 0.0.0",
    template: "ab12",
    digest: id.padEnd(64, "0"),
    pagesBytes: 8_000_000,
    devicesBytes: 200_000,
    disksBytes: 3_000_000,
    pauseMs: 12.34,
    frozenMs: 23.4,
    problem: undefined,
  };
}
