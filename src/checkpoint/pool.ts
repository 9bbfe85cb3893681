/**
 * VMs that run and wait for the sandbox that they will be of: copies of a template that have rehearsed a container, so that what comes
 * next is quick even where every instruction is translated when it first runs. Each has the id that its sandbox will have: what a
 * killed owner leaves of them is found by it, and belongs to no sandbox. Where the sandbox is to have a network, its VM waits in the
 * place where that will be, with a network device that the guest has found.
 *
 * Invariant: a VM is handed out once, and only for the template that it is a copy of; whatever goes wrong here, a sandbox starts in
 * the usual way.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AgentLink, ConnectAgent } from "../agent-client/index.ts";
import { BelljarError, type Clock, type Log, messageChain, newId, poolLimits, sandboxLimits } from "../base/index.ts";
import type { Hypervisor, Vm, VmConfig, VmState } from "../hypervisor/interface.ts";
import { type NetworkState, type Networks, networkPath, type OwnNetworkState } from "../network/index.ts";
import { type BootTemplate, devicesOf, guestWords, type VmPool } from "../sandbox/index.ts";
import { rehearse } from "./rehearsal.ts";

export interface PoolDeps {
  readonly hypervisor: Hypervisor;
  readonly connectAgent: ConnectAgent;
  readonly networks: Networks;
  /** Sockets go below it, as those of sandboxes do. */
  readonly runDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** VMs that wait for each kind of sandbox; 0 has none wait. */
  readonly size: number;
  /** What the host could give to new processes, in MiB. */
  readonly availableMemoryMib: () => Promise<number>;
}

interface Waiting {
  readonly kind: string;
  readonly id: string;
  readonly digest: string;
  readonly runDir: string;
  readonly vm: Vm;
}

interface Kind {
  readonly config: VmConfig;
  /** Undefined for none. */
  readonly mode: OwnNetworkState["mode"] | undefined;
  readonly template: BootTemplate;
}

export class Pool implements VmPool {
  readonly #deps: PoolDeps;
  readonly #waiting = new Map<string, Waiting>();
  /** What kind of sandbox an id was given to that has not been started yet. */
  readonly #given = new Map<string, string>();
  /** The last kinds that were started, the latest last. */
  readonly #kinds = new Map<string, Kind>();
  readonly #closing = new AbortController();
  #filling: Promise<void> | undefined;
  #watch: NodeJS.Timeout | undefined;
  /** When a sandbox was last started: filling must not take its CPU away. */
  #quietFromMs = 0;

  constructor(deps: PoolDeps) {
    this.#deps = deps;
  }

  /** For a new sandbox of this kind: that of a VM which waits for it, or a fresh one. */
  idFor(kind: string): string {
    if (this.#deps.size === 0) return newId();
    const reserved = new Set(this.#given.keys());
    const found = [...this.#waiting.values()].find((each) => each.kind === kind && !reserved.has(each.id));
    const id = found?.id ?? newId();
    // Most are started at once; those that never are must not pile up.
    const [oldest] = this.#given.keys();
    if (this.#given.size >= poolLimits.reservationsMax && oldest !== undefined) this.#given.delete(oldest);
    this.#given.set(id, kind);
    return id;
  }

  /** The sandbox did not come to be. */
  async giveBack(id: string): Promise<void> {
    this.#given.delete(id);
    const found = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (found !== undefined) await this.#end(found);
  }

  async take(id: string, digest: string): Promise<VmState | undefined> {
    const found = this.#waiting.get(id);
    if (found === undefined) return undefined;
    this.#waiting.delete(id);
    if (found.digest !== digest) {
      // Its place is the sandbox's by now, and so is its directory.
      await this.#endVm(found.vm);
      return undefined;
    }
    const state = found.vm.save();
    await found.vm.release();
    return state;
  }

  started(id: string, config: VmConfig, template: BootTemplate, network: NetworkState | undefined): void {
    const kind = this.#given.get(id);
    if (kind === undefined || this.#closing.signal.aborted || network?.mode === "netns") return;
    this.#given.delete(id);
    this.#kinds.delete(kind);
    this.#kinds.set(kind, { config, mode: network?.mode, template });
    for (const [oldest] of this.#kinds) {
      if (this.#kinds.size <= poolLimits.kindsMax) break;
      this.#kinds.delete(oldest);
    }
    this.#quietFromMs = performance.now() + poolLimits.quietMs;
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = undefined;
    });
  }

  /** Ends those that wait. */
  async stop(): Promise<void> {
    this.#closing.abort(new BelljarError("CANCELLED", "the runtime was closed"));
    await this.#filling;
    clearInterval(this.#watch);
    this.#given.clear();
    await this.drain();
  }

  /** Ends those that wait for nobody in particular yet; more are started when sandboxes are. */
  async drain(): Promise<void> {
    const all = [...this.#waiting.values()].filter(({ id }) => !this.#given.has(id));
    for (const { id } of all) this.#waiting.delete(id);
    await Promise.all(all.map((each) => this.#end(each)));
  }

  async #fill(): Promise<void> {
    const { signal } = this.#closing;
    try {
      while (!signal.aborted) {
        const waitMs = this.#quietFromMs - performance.now();
        if (waitMs > 0) await this.#deps.clock.sleep(waitMs, signal);
        const missing = this.#missing();
        if (missing === undefined || !(await this.#hasRoom(missing.config.memoryMib))) return;
        await this.#add(missing.kind, missing);
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#deps.log.warn("no VM could be made to wait for a sandbox", { cause: messageChain(error).join(": ") });
    }
  }

  /** The kind that was started last comes first; others are ended when there are too many in all. */
  #missing(): ({ readonly kind: string } & Kind) | undefined {
    for (const [kind, value] of [...this.#kinds].reverse()) {
      const count = [...this.#waiting.values()].filter((each) => each.kind === kind).length;
      if (count < this.#deps.size) return { kind, ...value };
    }
    return undefined;
  }

  async #add(kind: string, { config, mode, template }: Kind): Promise<void> {
    const { hypervisor, networks, runDir: runs, connectAgent, clock, log } = this.#deps;
    const { signal } = this.#closing;
    const id = newId();
    const runDir = join(runs, id);
    await mkdir(runDir, { recursive: true, mode: 0o700 });
    let vm: Vm | undefined;
    let link: AgentLink | undefined;
    try {
      const memoryFile = { path: template.memoryPath, use: "private", template: template.digest } as const;
      const network = mode === undefined ? undefined : await networks.prepare(id, mode, runDir, signal);
      const networkNamespace = network === undefined ? undefined : networkPath(network);
      vm = await hypervisor.start(
        { ...config, id, runDir, memoryFile, networkNamespace },
        { signal, loadDevicesFrom: template.devicesPath },
      );
      await vm.resume();
      for (const nic of devicesOf(network)) await vm.plugDevice(nic);
      const timeoutMs = sandboxLimits.bootTimeoutMs;
      link = await connectAgent({ socketPath: vm.agentSocketPath, timeoutMs, signal, log });
      await rehearse(link, clock.nowMs(), signal);
      const words = guestWords({ state: { network }, machine: { vm } });
      // One that it will not have, so that the real one is quick.
      if (words !== undefined) await link.call("configureNetwork", words, { signal });
    } catch (error) {
      await link?.close();
      if (vm !== undefined) await this.#endVm(vm);
      await this.#clear(id, runDir);
      throw error;
    }
    await link.close();
    const { digest } = template;
    this.#waiting.set(id, { kind, id, digest, runDir, vm });
    void vm.ended.then(() => this.#forget(id, vm));
    this.#watch ??= setInterval(() => void this.#look(), poolLimits.watchIntervalMs).unref();
    log.info("a VM waits for a sandbox", { sandbox: id });
  }

  /** One that has ended by itself. What is left of it is its sandbox's when that is just being made. */
  async #forget(id: string, vm: Vm): Promise<void> {
    const found = this.#waiting.get(id);
    if (found?.vm !== vm || this.#given.has(id)) return;
    this.#waiting.delete(id);
    await this.#end(found);
  }

  async #look(): Promise<void> {
    if (this.#waiting.size === 0 || (await this.#hasRoom(0))) return;
    this.#deps.log.info("memory is short: the VMs that wait for sandboxes are ended", { count: this.#waiting.size });
    await this.drain();
  }

  async #hasRoom(memoryMib: number): Promise<boolean> {
    const availableMib = await this.#deps.availableMemoryMib().catch(() => 0);
    return availableMib >= memoryMib + poolLimits.reserveMib;
  }

  async #end({ id, vm, runDir }: Waiting): Promise<void> {
    await this.#endVm(vm);
    await this.#clear(id, runDir);
  }

  async #clear(id: string, runDir: string): Promise<void> {
    await this.#deps.networks.giveUp(id).catch((error: unknown) => {
      this.#deps.log.warn("the network of a VM that waited is left", { cause: messageChain(error).join(": ") });
    });
    await rm(runDir, { recursive: true, force: true });
  }

  async #endVm(vm: Vm): Promise<void> {
    await vm.kill().catch((error: unknown) => {
      this.#deps.log.warn("a VM that waited could not be ended", { cause: messageChain(error).join(": ") });
    });
  }
}
