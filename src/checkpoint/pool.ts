/**
 * VMs that run and wait for the sandbox that they will be of: copies of a template that have rehearsed a container, so that what comes
 * next is quick even where every instruction is translated when it first runs. One that is to have a network has a network device
 * that its guest has found.
 *
 * Invariant: a VM is handed out only for the template that it is a copy of.
 */
import type { AgentLink, ConnectAgent } from "../agent-client/index.ts";
import { messageChain, sandboxLimits } from "../base/index.ts";
import type { Hypervisor, Vm, VmConfig, VmState } from "../hypervisor/interface.ts";
import { expectedNetwork, type NetworkState, networkPath } from "../network/index.ts";
import { type BootTemplate, devicesOf, guestWords, type VmPool } from "../sandbox/index.ts";
import { rehearse } from "./rehearsal.ts";
import { type Blueprint, type RoomDeps, type WaitingPlace, WaitingRoom } from "./waiting-room.ts";

export interface PoolDeps extends RoomDeps {
  readonly hypervisor: Hypervisor;
  readonly connectAgent: ConnectAgent;
}

interface Kind extends Blueprint {
  readonly config: VmConfig;
  readonly template: BootTemplate;
}

interface WaitingVm {
  readonly vm: Vm;
  readonly digest: string;
}

export class Pool implements VmPool {
  readonly #deps: PoolDeps;
  readonly #room: WaitingRoom<Kind, WaitingVm>;

  constructor(deps: PoolDeps) {
    this.#deps = deps;
    this.#room = new WaitingRoom(deps, {
      what: "VM",
      make: (kind, place, signal) => this.#make(kind, place, signal),
      ended: ({ vm }) => vm.ended,
      end: ({ vm }) => vm.kill(),
    });
  }

  /** For a new sandbox of this kind: that of a VM which waits for it, or a fresh one. */
  idFor(kind: string): string {
    return this.#room.idFor(kind);
  }

  /** The sandbox did not come to be. */
  giveBack(id: string): Promise<void> {
    return this.#room.giveBack(id);
  }

  async take(id: string, digest: string): Promise<VmState | undefined> {
    const found = this.#room.take(id);
    if (found === undefined) return undefined;
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
    const kind = this.#room.started(id);
    if (kind === undefined || network?.mode === "netns") return;
    const expected = network && expectedNetwork(network);
    this.#room.want(kind, { config, network: expected, template, memoryMib: config.memoryMib });
  }

  /** Ends those that wait. */
  stop(): Promise<void> {
    return this.#room.stop();
  }

  /** Ends those that wait for nobody in particular yet; more are started when sandboxes are. */
  drain(): Promise<void> {
    return this.#room.drain();
  }

  async #make({ config, template }: Kind, place: WaitingPlace, signal: AbortSignal): Promise<WaitingVm> {
    const { hypervisor, connectAgent, clock, log } = this.#deps;
    const { id, runDir, network, onSpawn } = place;
    const memoryFile = { path: template.memoryPath, use: "private", template: template.digest } as const;
    const networkNamespace = network === undefined ? undefined : networkPath(network);
    const vm = await hypervisor.start(
      { ...config, id, runDir, memoryFile, networkNamespace },
      { signal, onSpawn, loadDevicesFrom: template.devicesPath },
    );
    let link: AgentLink | undefined;
    try {
      await vm.resume();
      for (const nic of devicesOf(network)) await vm.plugDevice(nic);
      const timeoutMs = sandboxLimits.bootTimeoutMs;
      link = await connectAgent({ socketPath: vm.agentSocketPath, timeoutMs, signal, log });
      await rehearse(link, clock.nowMs(), signal);
      const words = guestWords({ state: { network }, machine: { vm } });
      // One that it will not have, so that the real one is quick.
      if (words !== undefined) await link.call("configureNetwork", words, { signal });
      await link.close();
      return { vm, digest: template.digest };
    } catch (error) {
      await link?.close();
      await this.#endVm(vm);
      throw error;
    }
  }

  async #endVm(vm: Vm): Promise<void> {
    await vm.kill().catch((error: unknown) => {
      this.#deps.log.warn("a VM that waited could not be ended", { cause: messageChain(error).join(": ") });
    });
  }
}
