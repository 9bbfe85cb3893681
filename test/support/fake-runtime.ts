/**
 * A runtime without VMs, for tests of the daemon and of what talks to it: sandboxes are objects, a process is its command word.
 * What `pattern N` writes is the same in every process of the host, so a daemon that was killed has a successor that goes on.
 */

import {
  BelljarError,
  type ErrorReason,
  type LifecycleState,
  linesOf,
  newId,
  throwIfAborted,
  transition,
} from "../../src/base/index.ts";
import { type DeviceRequest, titleOf } from "../../src/devices/index.ts";
import type {
  ContainerHandle,
  ContainerInfo,
  ContainerStats,
  DeviceInfo,
  Devices,
  EventsOptions,
  InputAnswer,
  InputRequest,
  LogOptions,
  LogRecord,
  OutputPiece,
  OutputRequest,
  ProcessHandle,
  RouteInfo,
  RuntimeEvent,
  SandboxCreateConfig,
  SandboxEvent,
  Sandboxes,
  SandboxHandle,
  SandboxInfo,
  SandboxNetwork,
  SandboxResources,
  StorageState,
} from "../../src/runtime/index.ts";
import { type CopyOptions, FakeCheckpoints, type FakeSource } from "./fake-checkpoints.ts";
import { FakeVolumes } from "./fake-volumes.ts";
import { MemoryFiles } from "./memory-files.ts";

const STATUS = {
  exitCode: 3,
  signal: undefined,
  oomKilled: false,
  startedAtMs: 1,
  exitedAtMs: 2,
  launchError: undefined,
};

/** The byte at an offset of what `pattern` writes: no two neighbours are equal, and no short period. */
export function patternByte(offset: number): number {
  return (offset * 31 + (offset >> 8) * 7 + (offset >> 16)) & 0xff;
}

export class FakeProcess {
  readonly id: string;
  readonly command: readonly string[];
  readonly input: Buffer[] = [];
  /** The furthest byte that anybody asked for: how far a process that waits for its reader has come. */
  furthest = 0n;
  detached = 0;
  touched = 0;
  released = 0;
  readonly signals: number[] = [];
  readonly #end = Promise.withResolvers<void>();
  #accepted = 0n;
  #ended = false;

  constructor(id: string, command: readonly string[]) {
    this.id = id;
    this.command = command;
    if (command[0] === "pattern") this.end();
  }

  end(): void {
    this.#ended = true;
    this.#end.resolve();
  }

  async readOutput({ stream, offset, maxBytes, detach }: OutputRequest, signal?: AbortSignal): Promise<OutputPiece> {
    if (detach === true) this.detached += 1;
    if (maxBytes === 0) {
      this.touched += 1;
      return { offset, data: new Uint8Array(0), end: false };
    }
    const total = stream === 1 && this.command[0] === "pattern" ? BigInt(this.command[1] ?? 0) : 0n;
    if (offset >= total) {
      if (!this.#ended) await aborted(signal, this.#end.promise);
      return { offset, data: new Uint8Array(0), end: this.#ended };
    }
    const count = Math.min(maxBytes, Number(total - offset));
    this.furthest = offset + BigInt(count) > this.furthest ? offset + BigInt(count) : this.furthest;
    const data = Uint8Array.from({ length: count }, (_, at) => patternByte(Number(offset) + at));
    // A process takes time to write.
    await new Promise((resolve) => setImmediate(resolve));
    return { offset, data, end: offset + BigInt(count) === total };
  }

  async writeInput({ offset, data, end }: InputRequest): Promise<InputAnswer> {
    if (offset === this.#accepted) {
      // Half of a piece at a time, so that the rest must be sent again.
      const taken = data.length > 1 ? Math.ceil(data.length / 2) : data.length;
      this.input.push(Buffer.from(data.subarray(0, taken)));
      this.#accepted += BigInt(taken);
    }
    if (end) this.end();
    return { accepted: this.#accepted, closed: false };
  }

  async waitForEnd(waitMs: number, signal?: AbortSignal): Promise<typeof STATUS | undefined> {
    if (!this.#ended && waitMs > 0) {
      const late = new Promise<void>((resolve) => setTimeout(resolve, waitMs).unref());
      await aborted(signal, Promise.race([this.#end.promise, late]));
    }
    return this.#ended ? STATUS : undefined;
  }

  handle(containerId: string): ProcessHandle {
    return {
      containerId,
      id: this.id,
      pid: 77,
      tty: false,
      stdin: new WritableStream(),
      stdout: new ReadableStream(),
      stderr: new ReadableStream(),
      lines: () => linesOf({ stdout: new ReadableStream(), stderr: new ReadableStream() }),
      lostBytes: 0n,
      status: new Promise(() => {}),
      signal: async (number) => {
        this.signals.push(number);
        this.end();
      },
      resize: async () => {},
      release: async () => {
        this.released += 1;
      },
      readOutput: (request, options) => this.readOutput(request, options?.signal),
      writeInput: (request) => this.writeInput(request),
      waitForEnd: (waitMs, options) => this.waitForEnd(waitMs, options?.signal),
      [Symbol.asyncDispose]: async () => {},
    };
  }
}

/** Waits for `work`, or throws when the signal fires first. */
async function aborted<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  throwIfAborted(signal);
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(BelljarError.from(signal?.reason));
  signal?.addEventListener("abort", onAbort);
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

export class FakeSandbox implements FakeSource<FakeSandbox> {
  readonly files = new MemoryFiles();
  readonly id: string;
  readonly config: SandboxCreateConfig;
  readonly processes = new Map<string, FakeProcess>();
  readonly events: SandboxEvent[] = [];
  readonly limits: object[] = [];
  storage: StorageState = { kind: "disk", sizeBytes: 1_000 };
  annotations: Readonly<Record<string, string>>;
  name: string;
  resources: SandboxResources = {};
  state: LifecycleState = "ready";
  isHibernated = false;
  watchers = 0;
  containersDeleted = 0;
  generation = 0;
  devices: readonly DeviceInfo[] = [];
  readonly interfaces: string[] = [];
  routes: readonly RouteInfo[] = [];
  /** What was asked for, as the far side understood it. */
  readonly deviceRequests: DeviceRequest[] = [];

  constructor(config: SandboxCreateConfig, id = newId()) {
    this.id = id;
    this.config = config;
    this.name = config.name ?? id;
    this.annotations = config.annotations ?? {};
    this.processes.set("", new FakeProcess("", config.container?.command ?? []));
  }

  move(to: LifecycleState): void {
    this.state = transition("sandbox", this.state, to, this.id);
  }

  copy({ name, hostname, keepExec = false, generation = this.generation + 1 }: CopyOptions): FakeSandbox {
    const config = { ...this.config, name, hostname: hostname ?? this.config.hostname };
    const copy = new FakeSandbox(config);
    for (const [path, file] of this.files.files) copy.files.files.set(path, file);
    for (const [id, { command }] of this.processes) {
      if (id === "" || keepExec) copy.processes.set(id, new FakeProcess(id, command));
    }
    const { annotations, resources, storage, state } = this;
    return Object.assign(copy, { annotations, resources, storage, state, generation });
  }

  container(): ContainerInfo {
    return {
      id: `${this.id.slice(0, 11)}c`,
      name: "main",
      state: this.state,
      image: this.config.image ?? "",
      command: this.config.container?.command ?? [],
      createdAtMs: 1_700_000_000_000,
      startedAtMs: undefined,
      pid: this.state === "running" ? 77 : undefined,
      tty: false,
      stdin: this.config.container?.stdin ?? false,
      annotations: this.config.container?.annotations ?? { made: "by the fake" },
      limits: { cpus: 0.5 },
      mounts: [{ type: "volume", source: "data", destination: "/data", readOnly: true, how: "disk" }],
      storage: this.storage,
      status: this.state === "stopped" ? STATUS : undefined,
      end: undefined,
    };
  }

  info(): SandboxInfo {
    return {
      id: this.id,
      name: this.name,
      state: this.isHibernated ? "hibernated" : this.state,
      hibernation: this.isHibernated ? { sinceMs: 1_700_000_000_000, ports: [] } : undefined,
      trail:
        this.config.trail === undefined
          ? undefined
          : { everyMs: this.config.trail.everyMs, keep: this.config.trail.keep ?? 10 },
      restart: this.config.restart === undefined ? undefined : { ...this.config.restart, count: 0 },
      idleTimeoutMs: this.config.idleTimeoutMs,
      image: this.config.image ?? "",
      createdAtMs: 1_700_000_000_000,
      memoryMib: this.resources.memoryMib ?? this.config.memoryMib ?? 256,
      cpus: this.resources.cpus ?? 1,
      resources: {
        memoryAskedMib: 256,
        cpusAsked: 1,
        memoryMaxMib: this.config.memoryMaxMib ?? 8192,
        cpusMax: this.config.cpusMax ?? 8,
        sharedMemoryBytes: this.resources.sharedMemoryBytes,
        cgroups: ["/sys/fs/cgroup/belljar/0123abcd/fake"],
      },
      hostname: this.config.hostname ?? this.id,
      annotations: this.annotations,
      containers: [this.container()],
      devices: [...this.devices],
      vmm: this.state === "stopped" ? undefined : { pid: 4711, acceleration: "tcg" },
      generation: this.generation,
      checkpoints: this.generation,
      end: undefined,
      problem: undefined,
    };
  }
}

export class FakeRuntime {
  readonly sandboxes: Sandboxes;
  readonly volumes = new FakeVolumes();
  readonly recovered = [{ kind: "sockets", name: "abc", what: "removed" }] as const;
  readonly all = new Map<string, FakeSandbox>();
  readonly checkpoints = new FakeCheckpoints<FakeSandbox>({
    add: (sandbox) => this.#add(sandbox),
    end: (source) => source.move("stopped"),
  });
  /** Of all sandboxes; the first one has the number 1. */
  readonly events: RuntimeEvent[] = [];
  /** The next call of `create` waits for this. */
  holdCreate: Promise<void> | undefined;
  cancelled = 0;
  released = 0;

  constructor() {
    this.sandboxes = {
      create: async (config, options = {}) => {
        if (config.image === "missing") {
          throw new BelljarError("IMAGE_NOT_FOUND", "no image missing", {
            facts: { name: "missing", tries: 2, sure: true, near: ["a", "b"] },
            cause: new BelljarError("DISK_FAILED", "the index could not be read", { cause: new Error("EIO: sad") }),
          });
        }
        try {
          if (this.holdCreate !== undefined) await aborted(options.signal, this.holdCreate);
        } catch (error) {
          this.cancelled += 1;
          throw error;
        }
        if (typeof config.template === "string") return await this.checkpoints.start(config.template, config);
        const sandbox = new FakeSandbox(config);
        if (options.start !== false) sandbox.move("running");
        return this.#add(sandbox);
      },
      get: async (nameOrId) => this.#handle(this.find(nameOrId)),
      list: async () => [...this.all.values()].map((sandbox) => sandbox.info()),
      events: (options) => this.#watchAll(options ?? {}),
    };
  }

  #watchAll({ after = this.events.length, follow, onBegin, signal }: EventsOptions): AsyncIterable<RuntimeEvent> {
    if (!Number.isInteger(after) || after < 0 || after > this.events.length) {
      throw notFound("INVALID_ARGUMENT", `${after} is no number of an event`);
    }
    onBegin?.(after);
    return this.#eventsBehind(after, follow !== false, signal);
  }

  async *#eventsBehind(after: number, follow: boolean, signal?: AbortSignal): AsyncGenerator<RuntimeEvent> {
    for (let next = after; next < this.events.length || follow; next += 1) {
      while (next >= this.events.length) await aborted(signal, new Promise((resolve) => setTimeout(resolve, 5)));
      const event = this.events[next];
      if (event !== undefined) yield event;
    }
  }

  async release(): Promise<void> {
    this.released += 1;
  }

  find(nameOrId: string): FakeSandbox {
    const found = [...this.all.values()].find(({ id, name }) => id === nameOrId || name === nameOrId);
    if (found !== undefined) return found;
    throw notFound("SANDBOX_NOT_FOUND", `no sandbox ${JSON.stringify(nameOrId)}`);
  }

  #add(sandbox: FakeSandbox): SandboxHandle {
    this.all.set(sandbox.id, sandbox);
    return this.#handle(sandbox);
  }

  #handle(sandbox: FakeSandbox): SandboxHandle {
    const main = container(sandbox);
    return {
      id: sandbox.id,
      name: sandbox.info().name,
      info: async () => this.find(sandbox.id).info(),
      start: async () => sandbox.move("running"),
      stop: async () => {
        if (sandbox.state !== "stopped") sandbox.move("stopped");
      },
      pause: async () => sandbox.move("paused"),
      resume: async () => sandbox.move("running"),
      hibernate: async () => {
        sandbox.isHibernated = true;
      },
      wake: async () => {
        sandbox.isHibernated = false;
      },
      delete: async () => {
        this.all.delete(sandbox.id);
      },
      checkpoint: (options) => this.checkpoints.create(sandbox, options ?? {}),
      waitForCheckpoint: (options) => this.checkpoints.waitForNext(sandbox.id, options?.signal),
      waitForRestore: async () => {
        if (sandbox.generation === 0) throw notFound("INVALID_TRANSITION", "it was neither restored nor forked");
      },
      rewind: async ({ checkpoint, beforeMs, keepExec } = {}) => {
        sandbox.annotations = { ...sandbox.annotations, rewound: JSON.stringify({ checkpoint, beforeMs, keepExec }) };
        sandbox.generation += 1;
        const latest = (await this.checkpoints.list()).at(-1)?.id ?? "latest";
        return await this.checkpoints.get(checkpoint ?? latest);
      },
      fork: (options) => this.checkpoints.fork(sandbox, options ?? {}),
      rename: async (name) => {
        sandbox.name = name;
      },
      annotations: async () => sandbox.annotations,
      setAnnotations: async (annotations) => {
        sandbox.annotations = { ...sandbox.annotations, ...annotations };
      },
      update: async (resources) => {
        sandbox.resources = { ...sandbox.resources, ...resources };
      },
      stats: async () => ({
        host: { cpuUs: 1n, residentBytes: 2n, threads: 3 },
        guest: { memoryTotalBytes: 4n, memoryAvailableBytes: 5n, agentResidentBytes: 6n, processes: 7 },
        containers: { [main.id]: STATS },
      }),
      watch: (options) => watch(sandbox, options?.signal),
      containers: {
        create: async () => main,
        get: async (nameOrId) => {
          if (nameOrId === main.id || nameOrId === "main") return main;
          throw notFound("CONTAINER_NOT_FOUND", `no container ${nameOrId}`);
        },
        list: async () => [sandbox.container()],
      },
      devices: fakeDevices(sandbox),
      network: fakeNetwork(sandbox),
      main,
      files: sandbox.files,
      exec: (command, options) => main.exec(command, options),
      spawn: (command, options) => main.spawn(command, options),
      [Symbol.asyncDispose]: async () => {},
    };
  }
}

function fakeDevices(sandbox: FakeSandbox): Devices {
  return {
    add: async (config) => {
      sandbox.deviceRequests.push(config);
      const info: DeviceInfo = {
        id: `d-${sandbox.devices.length}`,
        kind: config.kind,
        source: titleOf(config),
        readOnly: false,
        state: "attached",
        references: 1,
        attachments: ["sandbox"],
        nodes: ["/dev/sdb"],
        isContainers: false,
        backEndPid: undefined,
      };
      sandbox.devices = [...sandbox.devices, info];
      return info;
    },
    remove: async (id) => {
      if (!sandbox.devices.some((device) => device.id === id)) throw notFound("DEVICE_NOT_FOUND", `no device ${id}`);
      sandbox.devices = sandbox.devices.filter((device) => device.id !== id);
    },
    list: async () => sandbox.devices,
  };
}

/** Interfaces by their names in the namespace; each is the guest's under the same name. */
function fakeNetwork(sandbox: FakeSandbox): SandboxNetwork {
  return {
    interfaces: async () =>
      sandbox.interfaces.map((name) => ({
        name,
        macAddress: "02:00:00:00:00:01",
        mtu: 1500,
        up: true,
        addresses: ["10.0.0.2/24"],
        source: name,
      })),
    addInterface: async (source) => {
      sandbox.interfaces.push(source);
    },
    removeInterface: async (name) => {
      if (!sandbox.interfaces.includes(name)) throw notFound("INTERFACE_NOT_FOUND", `no interface ${name}`);
      sandbox.interfaces.splice(sandbox.interfaces.indexOf(name), 1);
    },
    routes: async () => sandbox.routes,
    setRoutes: async (routes) => {
      sandbox.routes = routes;
    },
    refresh: async () => true,
  };
}

function notFound(reason: ErrorReason, message: string): BelljarError {
  return new BelljarError(reason, message);
}

async function* watch(sandbox: FakeSandbox, signal: AbortSignal | undefined): AsyncGenerator<SandboxEvent> {
  sandbox.watchers += 1;
  try {
    yield* sandbox.events;
    await aborted(signal, new Promise(() => {}));
  } finally {
    sandbox.watchers -= 1;
  }
}

async function* logs(sandbox: FakeSandbox, { follow, signal, sinceMs }: LogOptions): AsyncGenerator<LogRecord> {
  const total = Number(sandbox.config.container?.command?.[1] ?? 0);
  for (let at = 0; at < total; at += 1000) {
    const data = Uint8Array.from({ length: Math.min(1000, total - at) }, (_, index) => patternByte(at + index));
    if (at < (sinceMs ?? 0)) continue;
    yield { stream: 1, timeMs: at, offset: BigInt(at), data, lostBytes: 0n };
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (follow === true) await aborted(signal, new Promise(() => {}));
}

function container(sandbox: FakeSandbox): ContainerHandle {
  const { id } = sandbox.container();
  const find = (processId: string): FakeProcess => {
    const found = sandbox.processes.get(processId);
    if (found === undefined) throw notFound("PROCESS_NOT_FOUND", `no process ${processId}`);
    return found;
  };
  const spawn = (command: readonly string[]): FakeProcess => {
    if (command[0] === "missing") throw new BelljarError("COMMAND_NOT_FOUND", "the command does not exist");
    const process = new FakeProcess(newId(), command);
    sandbox.processes.set(process.id, process);
    return process;
  };
  return {
    id,
    sandboxId: sandbox.id,
    name: "main",
    files: sandbox.files,
    info: async () => sandbox.container(),
    start: async () => sandbox.move("running"),
    stop: async () => {},
    kill: async ({ number = 9 } = {}) => {
      find("").signals.push(number);
      find("").end();
    },
    pause: async () => {},
    resume: async () => {},
    delete: async () => {
      sandbox.containersDeleted += 1;
    },
    growStorage: async (sizeBytes) => {
      sandbox.storage = { kind: "disk", sizeBytes };
    },
    update: async (limits) => {
      sandbox.limits.push(limits);
    },
    stats: async () => STATS,
    wait: async ({ signal } = {}) => {
      for (;;) {
        const status = await find("").waitForEnd(1000, signal);
        if (status !== undefined) return status;
      }
    },
    attach: async () => find("").handle(id),
    logs: (options = {}) => logs(sandbox, options),
    exec: async () => ({ exitCode: 0, stdout: "", stderr: "" }),
    spawn: async (command) => spawn(command).handle(id),
    process: async (processId) => find(processId).handle(id),
    processes: async () =>
      [...sandbox.processes.keys()].map((each) => ({ id: each, pid: 1, startedAtMs: 5, tty: false })),
    [Symbol.asyncDispose]: async () => {},
  };
}

const STATS: ContainerStats = {
  cpu: { usageUs: 1n, userUs: 2n, systemUs: 3n, periods: 4n, throttledPeriods: 5n, throttledUs: 6n },
  memory: { usageBytes: 7n, peakBytes: 8n, limitBytes: undefined, swapBytes: 0n, oomKills: 0n, detail: { anon: 9n } },
  pids: { current: 1n, limit: 100n },
  blockIo: [{ device: "8:0", readBytes: 1n, writtenBytes: 2n, reads: 3n, writes: 4n }],
  hugetlb: [{ pageSize: "2MB", usageBytes: 0n, failures: 0n }],
  network: [],
};
