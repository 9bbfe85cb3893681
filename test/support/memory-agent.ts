/**
 * The guest in memory: what the agent answers, for a VM of `MemoryHypervisor`. It outlives links and owners as a guest does, stands
 * still while its VM is paused, and is gone with it.
 *
 * What a process does is said by its command: `run` goes on until a signal, `stubborn` until SIGKILL, `exit N` ends at once,
 * `echo TEXT` writes and ends, `busybox echo TEXT` the same, `missing` does not exist. A test may also end a process, write for it, and play faults: calls that
 * fail, that are held, whose answer is lost, or is wrong.
 */
import { setImmediate } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type {
  AgentLink,
  AgentMethod,
  AgentRequest,
  AgentResponse,
  ConnectAgent,
} from "../../src/agent-client/index.ts";
import { BelljarError, cancelledError, parseJson, withDeadline } from "../../src/base/index.ts";
import { AgentService, ContainerPhase, WAKE_ANSWER_BYTES } from "../../src/protocol/index.ts";
import type { MemoryHypervisor, MemoryVm } from "./memory-hypervisor.ts";
import { MemoryProcess } from "./memory-process.ts";
import { decodeWake } from "./wake-message.ts";

const DEFAULT_TIMEOUT_MS = 30_000;
const SIGKILL = 9;

export class MemoryContainer {
  readonly id: string;
  readonly request: AgentRequest<"createContainer">;
  readonly args: readonly string[];
  readonly processes = new Map<string, MemoryProcess>();
  /** What was copied in last, by its key. */
  readonly copies = new Map<string, AgentRequest<"copyIn">>();
  frozen = false;
  /** A process of it waits for its command. */
  hasPrepared = false;

  constructor(id: string, request: AgentRequest<"createContainer">, args: readonly string[]) {
    this.id = id;
    this.request = request;
    this.args = args;
  }

  get init(): MemoryProcess | undefined {
    return this.processes.get("");
  }

  get phase(): ContainerPhase {
    if (this.init === undefined) return ContainerPhase.READY;
    if (this.init.end !== undefined) return ContainerPhase.STOPPED;
    return this.frozen ? ContainerPhase.PAUSED : ContainerPhase.RUNNING;
  }
}

/** One VM's guest. */
export class MemoryGuest {
  readonly vm: MemoryVm;
  readonly containers = new Map<string, MemoryContainer>();
  /** Changes when the agent starts anew. */
  instance = `agent-${Math.random()}`;
  configured: AgentRequest<"configureSandbox">[] = [];
  networks: AgentRequest<"configureNetwork">[] = [];
  updates: AgentRequest<"updateContainer">[] = [];
  frozen = false;
  /** It stands still, and something else runs in it. */
  isRehearsing = false;
  readonly thaws: AgentRequest<"thaw">[] = [];
  /** How far its clock is off after each time that it is told the time; not told of beyond these. */
  clockOffMs: number[] = [];
  /** Hooks of its containers that fail. */
  failingHooks: { containerId: string; hook: string; message: string }[] = [];
  /** What containers were given to write to after their creation, in bytes. */
  readonly storageSizes = new Map<string, number>();
  /** What it was told of its VM's size. */
  fits: { readonly cpus: number; readonly pluggedMib: number }[] = [];
  /** The VM has more memory, and the guest does not bring it online. */
  refusesMemory = false;
  /** Its agent is one of those that are told who they are before they are thawed, by calls of their own. */
  isOlder = false;
  /** Its copies are brought back by a program of the guest, before the agent is asked. */
  hasWaker = true;
  /** It was told to stand still until it is wanted. */
  isResting = false;
  /** What that program is to say instead of doing what it is told. */
  wakeErrno = 0;
  /** What it was told: path and text of each file, pids of those to be ended. */
  readonly woken: {
    readonly files: ReadonlyMap<string, string>;
    readonly killed: readonly number[];
    /** Requests of rtnetlink. */
    readonly network: readonly Uint8Array[];
  }[] = [];
  #nextPid = 100;

  constructor(vm: MemoryVm) {
    this.vm = vm;
    vm.onWake = (message) => this.#wake(message);
  }

  plan(): AgentResponse<"freeze">["wake"] | undefined {
    if (!this.hasWaker || this.failingHooks.length > 0) return undefined;
    const identity = "event={event} generation={generation} sandbox={sandbox} time={time}";
    return create(AgentService.method.freeze.output, {
      wake: {
        files: [
          { path: "/hostname", text: "{hostname}" },
          { path: "/hosts", text: "{hosts}" },
          { path: "/machine-id", text: "{machine-id}" },
          { path: "/identity", text: identity },
        ],
        furtherPids: [...this.containers.values()].flatMap(({ processes }) =>
          [...processes.values()].flatMap(({ id, pid, end }) => (id === "" || end !== undefined ? [] : [pid])),
        ),
        thaw: { path: "/thaw", text: "0" },
        rest: { path: "/rest", text: "1" },
        disconnects: true,
        interfaces: (this.networks.at(-1)?.interfaces ?? []).map((each, at) => {
          const { name = "", macAddress = "", mtu = 0, addresses = [] } = each;
          return { index: at + 2, name, macAddress, mtu, addresses };
        }),
      },
    }).wake;
  }

  #wake(message: Uint8Array): Buffer {
    const { steps } = decodeWake(message);
    const answer = Buffer.alloc(WAKE_ANSWER_BYTES);
    answer.writeUInt32LE(this.wakeErrno, 0);
    if (this.wakeErrno !== 0) return answer;
    const files = new Map(steps.flatMap((step) => (step.kind === "write" ? [[step.path, step.text] as const] : [])));
    const killed = steps.flatMap((step) => (step.kind === "kill" ? [step.pid] : []));
    const network = steps.flatMap((step) => (step.kind === "network" ? step.requests : []));
    this.woken.push({ files, killed, network });
    if (files.get("/thaw") === "0") this.frozen = false;
    if (files.has("/rest")) this.isResting = files.get("/rest") === "1";
    for (const { processes } of this.containers.values()) {
      for (const process of processes.values()) if (killed.includes(process.pid)) process.signal(SIGKILL);
    }
    answer.writeUInt32LE(steps.length, 4);
    return answer;
  }

  /** Everything in it is as in another one. */
  become(other: MemoryGuest): void {
    this.instance = other.instance;
    this.frozen = other.frozen;
    this.isOlder = other.isOlder;
    this.hasWaker = other.hasWaker;
    this.wakeErrno = other.wakeErrno;
    this.failingHooks = [...other.failingHooks];
    this.#nextPid = other.#nextPid;
    for (const [id, { request, args, processes, frozen, hasPrepared }] of other.containers) {
      const container = new MemoryContainer(id, request, args);
      container.frozen = frozen;
      container.hasPrepared = hasPrepared;
      for (const { id: processId, pid, args: words, terminal, stdin, output, end } of processes.values()) {
        const process = new MemoryProcess(processId, pid, words, { terminal, stdin });
        Object.assign(process.output, output);
        if (end !== undefined) process.exit(end.exitCode, end.signal);
        container.processes.set(processId, process);
      }
      this.containers.set(id, container);
    }
  }

  container(id: string): MemoryContainer {
    const found = this.containers.get(id);
    if (found !== undefined) return found;
    throw new BelljarError("CONTAINER_NOT_FOUND", `the guest has no container ${id}`);
  }

  process(containerId: string, processId: string): MemoryProcess {
    const found = this.container(containerId).processes.get(processId);
    if (found !== undefined) return found;
    throw new BelljarError("PROCESS_NOT_FOUND", `the container has no process ${JSON.stringify(processId)}`);
  }

  configure(request: AgentRequest<"configureSandbox">): { readonly realtimeNs?: bigint } {
    this.configured.push(request);
    const offMs = this.clockOffMs.shift();
    return offMs === undefined ? {} : { realtimeNs: BigInt(Date.now() + offMs) * 1_000_000n };
  }

  createContainer(request: AgentRequest<"createContainer">): void {
    const id = request.containerId ?? "";
    if (this.containers.has(id)) throw new BelljarError("CONTAINER_EXISTS", `the guest has a container ${id} already`);
    const mounted = (request.mounts ?? []).flatMap(({ from }) => (from?.case === "disk" ? [from.value] : []));
    const serials = [...(request.rootfs?.layers ?? []), request.rootfs?.writable, request.swap, ...mounted];
    for (const disk of serials) {
      if (disk === undefined || this.vm.disks.some(({ serial }) => serial === disk.serial)) continue;
      throw new BelljarError("AGENT_FAILED", `the disk ${disk.serial} has not appeared`);
    }
    const spec = parseJson(Buffer.from(request.specJson ?? []).toString(), "spec", "INVALID_ARGUMENT");
    const args = spec
      .field("process")
      .field("args")
      .array((word) => word.string());
    this.containers.set(id, new MemoryContainer(id, request, request.keepAlive === true ? ["run"] : args));
  }

  start(
    containerId: string,
    processId: string,
    args: readonly string[],
    options: { terminal: boolean; stdin: boolean },
  ): MemoryProcess {
    const container = this.container(containerId);
    if (container.processes.has(processId)) throw new BelljarError("INVALID_TRANSITION", "it was started before");
    if (processId !== "" && container.phase !== ContainerPhase.RUNNING) {
      throw new BelljarError("INVALID_TRANSITION", `the container ${containerId} is not running`);
    }
    if (args[0] === "missing") throw new BelljarError("COMMAND_NOT_FOUND", "no such file");
    const process = new MemoryProcess(processId, this.#nextPid, args, options);
    if (processId !== "") container.hasPrepared = false;
    this.#nextPid += 1;
    container.processes.set(processId, process);
    const [name, ...words] = args[0] === "busybox" ? args.slice(1) : args;
    if (name === "echo") process.write(1, `${words.join(" ")}\n`);
    if (name === "echo" || name === "exit") process.exit(name === "exit" ? Number(words[0]) : 0);
    if (processId === "")
      void process.until(() => process.end !== undefined, 2 ** 31 - 1).then(() => this.#endAll(container));
    return process;
  }

  remove(containerId: string): void {
    const container = this.containers.get(containerId);
    if (container === undefined) return;
    for (const process of container.processes.values()) process.signal(SIGKILL);
    this.containers.delete(containerId);
  }

  #endAll(container: MemoryContainer): void {
    for (const process of container.processes.values()) process.signal(SIGKILL);
  }
}

type Fault =
  | { readonly kind: "fail"; readonly error: unknown }
  /** The call is carried out, and its answer never comes. */
  | { readonly kind: "lose" }
  /** These fields of the answer say something else. */
  | { readonly kind: "wrong"; readonly fields: Readonly<Record<string, unknown>> };

type Methods = (typeof AgentService)["method"];
type Answer<M extends AgentMethod> = MessageInitShape<Methods[M]["output"]>;
type Handler<M extends AgentMethod> = (guest: MemoryGuest, request: AgentRequest<M>) => Answer<M> | Promise<Answer<M>>;
type Handlers = { [M in AgentMethod]?: Handler<M> };

export class MemoryGuests {
  readonly guests = new Map<string, MemoryGuest>();
  /** `METHOD CONTAINER PROCESS`, in order; without those that only wait. */
  readonly calls: string[] = [];
  readonly #faults = new Map<AgentMethod, Fault[]>();
  readonly #gates = new Map<AgentMethod, Promise<void>>();

  /** Told of each of `calls`, for a test that has the order of several twins' calls in mind. */
  onCall: ((call: string) => void) | undefined;

  /** Told of each guest before its VM runs. */
  onGuest: ((guest: MemoryGuest) => void) | undefined;

  /** Every VM that the hypervisor starts gets a guest. */
  constructor(hypervisor: MemoryHypervisor) {
    hypervisor.onStart = (vm, loaded) => {
      const guest = new MemoryGuest(vm);
      if (loaded instanceof MemoryGuest) guest.become(loaded);
      this.guests.set(vm.config.id, guest);
      this.onGuest?.(guest);
    };
    hypervisor.onSave = (vm) => {
      const guest = new MemoryGuest(vm);
      const now = this.guests.get(vm.config.id);
      if (now !== undefined) guest.become(now);
      return guest;
    };
  }

  guest(sandboxId: string): MemoryGuest {
    const found = this.guests.get(sandboxId);
    if (found === undefined) throw new Error(`no VM was started for ${sandboxId}`);
    return found;
  }

  /** The next calls of this method, one fault each. */
  fault(method: AgentMethod, ...faults: Fault[]): void {
    this.#faults.set(method, [...(this.#faults.get(method) ?? []), ...faults]);
  }

  /** Calls of this method wait until the answered function is called. */
  hold(method: AgentMethod): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gates.set(method, promise);
    return () => {
      this.#gates.delete(method);
      resolve();
    };
  }

  readonly connect: ConnectAgent = async ({ socketPath }) => {
    const id = socketPath.split("/").at(-2) ?? "";
    const guest = this.guest(id);
    const { promise: closed, resolve: close } = Promise.withResolvers<BelljarError | undefined>();
    let ended: BelljarError | undefined;
    const end = (error: BelljarError | undefined): void => {
      ended ??= error ?? new BelljarError("AGENT_DISCONNECTED", "the link to the agent was closed");
      close(error);
    };
    void guest.vm.ended.then(() => end(new BelljarError("AGENT_DISCONNECTED", "the agent's socket was closed")));
    await guest.vm.whileRunning();
    if (guest.isResting) throw new BelljarError("AGENT_TIMEOUT", "the agent stands still");
    const link: AgentLink = {
      hello: {
        agentVersion: "1",
        kernelRelease: "6",
        uptimeMs: 1,
        agentInstance: guest.instance,
        thawConfigures: !guest.isOlder,
        rehearses: !guest.isOlder,
        preparesProcesses: !guest.isOlder,
      },
      closed,
      close: async () => end(undefined),
      call: async <M extends AgentMethod>(
        method: M,
        request: AgentRequest<M>,
        options = {},
      ): Promise<AgentResponse<M>> => {
        if (ended !== undefined) throw ended;
        const failed = closed.then((error) => {
          throw error ?? new BelljarError("AGENT_DISCONNECTED", "the link to the agent was closed");
        });
        failed.catch(() => {});
        const {
          signal,
          timeoutMs = DEFAULT_TIMEOUT_MS,
        }: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined } = options;
        return await withDeadline({ timeoutMs, what: method, signal, reason: "AGENT_TIMEOUT" }, async (over) =>
          Promise.race([this.#answer(guest, method, request, over), failed]),
        );
      },
    };
    return link;
  };

  async #answer<M extends AgentMethod>(
    guest: MemoryGuest,
    method: M,
    request: AgentRequest<M>,
    over: AbortSignal,
  ): Promise<AgentResponse<M>> {
    await this.#gates.get(method);
    await guest.vm.whileRunning();
    if (over.aborted) throw cancelledError(over);
    if (method !== "waitProcess" && method !== "readOutput") {
      this.calls.push(describe(method, request));
      this.onCall?.(describe(method, request));
    }
    const fault = this.#faults.get(method)?.shift();
    if (fault?.kind === "fail") throw fault.error;
    const handler: Handler<M> | undefined = handlers[method];
    if (handler === undefined) throw new BelljarError("AGENT_FAILED", `${method} is not played here`);
    const answer = create<Methods[M]["output"]>(AgentService.method[method].output, await handler(guest, request));
    if (fault?.kind === "lose") throw new BelljarError("AGENT_DISCONNECTED", `the answer to ${method} was lost`);
    return fault?.kind === "wrong" ? Object.assign(answer, fault.fields) : answer;
  }
}

function describe(method: string, request: object): string {
  const part = (name: string): string => {
    const value: unknown = Reflect.get(request, name);
    return typeof value === "string" && value !== "" ? ` ${value}` : "";
  };
  return `${method}${part("containerId")}${part("processId")}`;
}

const handlers: Handlers = {
  configureSandbox: (guest, request) => guest.configure(request),
  configureNetwork: (guest, request) => {
    guest.networks.push(request);
    return {};
  },
  getNetwork: (guest) => {
    const { interfaces = [], routes = [] } = guest.networks.at(-1) ?? {};
    return { interfaces: interfaces.map((each) => ({ ...each, up: true })), routes };
  },
  getGuestStats: (guest) => ({
    memoryTotalBytes: 256n << 20n,
    memoryAvailableBytes: 200n << 20n,
    agentResidentBytes: 50n << 20n,
    processes: guest.containers.size,
  }),
  findDevice: async (guest, { disk, pci }) => {
    const find = (): number => guest.vm.disks.findIndex(({ serial }) => serial === disk?.serial);
    // It is looked for while it is being plugged.
    for (let turn = 0; pci === undefined && find() === -1 && turn < 20; turn += 1) await setImmediate();
    const at = find();
    if (pci === undefined && at === -1) throw new BelljarError("AGENT_FAILED", "the disk has not appeared");
    const name = pci === undefined ? `sd${String.fromCharCode(97 + at)}` : "vda";
    return { nodes: [{ name, block: true, major: 8, minor: 16 * Math.max(0, at) }] };
  },
  freeze: (guest, { saving = false }) => {
    guest.frozen = true;
    const wake = guest.plan();
    const hookFailures = saving ? guest.failingHooks.filter(({ hook }) => hook === "before-save") : [];
    return wake === undefined ? { hookFailures } : { hookFailures, wake };
  },
  thaw: (guest, request) => {
    const clock = request.sandbox === undefined ? {} : guest.configure(request.sandbox);
    if (request.network !== undefined) guest.networks.push(request.network);
    if (guest.isRehearsing) return clock;
    guest.frozen = false;
    guest.thaws.push(request);
    if (request.endProcesses === true) {
      for (const { processes } of guest.containers.values()) {
        for (const id of [...processes.keys()]) if (id !== "") processes.delete(id);
      }
    }
    const told = request.event === "resumed" ? "after-resume" : "after-restore";
    const hookFailures = guest.failingHooks.filter(({ hook }) => hook === told);
    return { hookFailures, ...clock };
  },
  rehearse: (guest, { over = false }) => {
    if (!guest.frozen) throw new BelljarError("INVALID_ARGUMENT", "there is nothing that stands still");
    guest.isRehearsing = !over;
    return {};
  },
  fitResources: (guest, { cpus = 0, pluggedMemoryBytes = 0n, ahead = false }) => {
    if (ahead) return { cpus, pluggedMemoryBytes };
    guest.fits.push({ cpus, pluggedMib: Number(pluggedMemoryBytes >> 20n) });
    return { cpus, pluggedMemoryBytes: guest.refusesMemory ? 0n : pluggedMemoryBytes };
  },
  createContainer: (guest, request) => {
    guest.createContainer(request);
    return {};
  },
  startContainer: (guest, { containerId = "", stdin = false }) => {
    const { args, request } = guest.container(containerId);
    const spec = parseJson(Buffer.from(request.specJson ?? []).toString(), "spec", "INVALID_ARGUMENT");
    const terminal = spec.field("process").field("terminal").boolean();
    const { pid, startedAtNs } = guest.start(containerId, "", args, { terminal, stdin });
    return { pid, startedAtNs };
  },
  copyIn: (guest, request) => {
    guest.container(request.containerId ?? "").copies.set(request.key ?? "", request);
    return {};
  },
  removeContainer: (guest, { containerId = "" }) => {
    guest.remove(containerId);
    return {};
  },
  listContainers: (guest) => ({
    containers: [...guest.containers.values()].map((container) => ({
      containerId: container.id,
      phase: container.phase,
      processes: [...container.processes.values()].map((process) => ({
        processId: process.id,
        pid: process.pid,
        startedAtNs: process.startedAtNs,
        terminal: process.terminal,
        stdin: process.stdin,
        ...(process.end === undefined ? {} : { end: process.endMessage() }),
      })),
    })),
  }),
  pauseContainer: (guest, { containerId = "" }) => {
    guest.container(containerId).frozen = true;
    return {};
  },
  resumeContainer: (guest, { containerId = "" }) => {
    guest.container(containerId).frozen = false;
    return {};
  },
  updateContainer: (guest, request) => {
    guest.container(request.containerId ?? "");
    guest.updates.push(request);
    return {};
  },
  growStorage: (guest, { containerId = "", sizeBytes = 0n }) => {
    guest.container(containerId);
    guest.storageSizes.set(containerId, Number(sizeBytes));
    return {};
  },
  getContainerStats: (guest, { containerId = "" }) => {
    guest.container(containerId);
    return { cpu: { usageUs: 1n }, memory: { usageBytes: 2n }, pids: { current: 3n } };
  },
  execProcess: (guest, { containerId = "", processId = "", processJson, stdin = false }) => {
    const json = parseJson(Buffer.from(processJson ?? []).toString(), "process", "INVALID_ARGUMENT");
    const args = json.field("args").array((word) => word.string());
    const { pid, startedAtNs } = guest.start(containerId, processId, args, {
      terminal: json.field("terminal").boolean(),
      stdin,
    });
    return { pid, startedAtNs };
  },
  prepareProcess: (guest, { containerId = "" }) => {
    if (guest.isOlder) throw new BelljarError("AGENT_PROTOCOL", "there is no method PrepareProcess");
    const container = guest.container(containerId);
    if (container.phase !== ContainerPhase.RUNNING) {
      throw new BelljarError("INVALID_TRANSITION", `the container ${containerId} is not running`);
    }
    container.hasPrepared = true;
    return {};
  },
  signalProcess: (guest, { containerId = "", processId = "", signal = 0, all = false }) => {
    const container = guest.container(containerId);
    const processes = all ? [...container.processes.values()] : [guest.process(containerId, processId)];
    for (const process of processes) process.signal(signal);
    return {};
  },
  waitProcess: async (guest, { containerId = "", processId = "", waitMs = 0 }) => {
    const process = guest.process(containerId, processId);
    await process.until(() => process.end !== undefined, waitMs);
    return process.endMessage();
  },
  resizeTerminal: (guest, { containerId = "", processId = "" }) => {
    guest.process(containerId, processId);
    return {};
  },
  releaseProcess: (guest, { containerId = "", processId = "" }) => {
    guest.containers.get(containerId)?.processes.delete(processId);
    return {};
  },
  readOutput: async (
    guest,
    { containerId = "", processId = "", stream = 1, offset = 0n, maxBytes = 0, waitMs = 0 },
  ) => {
    const process = guest.process(containerId, processId);
    const which = stream === 2 ? 2 : 1;
    const from = Number(offset);
    await process.until(() => process.output[which].length > from || process.end !== undefined, waitMs);
    const data = process.output[which].subarray(from, from + maxBytes);
    const end = process.end !== undefined && from + data.length >= process.output[which].length && maxBytes > 0;
    return { offset, data, end };
  },
  writeInput: (guest, { containerId = "", processId = "", offset = 0n, data }) => {
    guest.process(containerId, processId);
    return { accepted: offset + BigInt(data?.length ?? 0), closed: false };
  },
};
