/**
 * One sandbox: its state on disk, the VM it has or does not have, and the order in which things are done to it. What is in
 * it, the folder above knows; the moves of the whole are made there too.
 *
 * Invariants: the state names the VM before anybody can rely on it, and the directory goes last, so that a successor finds
 * whatever is left. Operations that change the sandbox run one after the other (`exclusive`), under the lock of its directory.
 */
import { chmod, mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  type AgentLink,
  type AgentMethod,
  type AgentRequest,
  type AgentResponse,
  type CallOptions,
  type ConnectAgent,
  keptLink,
} from "../agent-client/index.ts";
import {
  BelljarError,
  type Clock,
  cancelledError,
  deviceLimits,
  type Log,
  messageChain,
  sandboxLimits,
  throwIfAborted,
  vmmLimits,
} from "../base/index.ts";
import { DeviceManager, endBackEndsOf, type GuestNode, type GuestQuestion, type VfioClaims } from "../devices/index.ts";
import type { GuestImage } from "../guest/index.ts";
import { guestPortPath } from "../hypervisor/index.ts";
import type {
  AccelerationProbe,
  DeviceConfig,
  DiskConfig,
  Hypervisor,
  VmConfig,
  VmEnd,
  VmSize,
  VmState,
} from "../hypervisor/interface.ts";
import { type NetworkState, type Networks, networkPath } from "../network/index.ts";
import type { HostCgroups } from "../resources/index.ts";
import { type acquireLock, type Disk, KeptLock, type StateSchema, Turns } from "../store/index.ts";
import { linkMemory } from "./base-memory.ts";
import { makeCgroup } from "./cgroup.ts";
import { growthOf, maxSize } from "./config.ts";
import { lockDirectory, lockToRead } from "./directory-lock.ts";
import { type Doubtful, withDoubtful } from "./doubtful.ts";
import { endProcess } from "./end-process.ts";
import type { LoadSource } from "./load-source.ts";
import { abortable, endError, Machine, type MachineDeps } from "./machine.ts";
import {
  configureGuest,
  doubtfulDevices as doubtfulNics,
  guestWords,
  makeNetwork,
  missingNics,
  type NamesOfOthers,
  namesOfOthers,
  placeNics,
  removeNetwork,
} from "./network.ts";
import { type GuestPciDevices, guestPciDevices, needsSwitch, VFIO_DEFAULTS, type VfioSettings } from "./pci-devices.ts";
import { SandboxRecord, type WriteOptions } from "./record.ts";
import { knownSize, type ResizeMachineOptions, resizeMachine } from "./resize.ts";
import { bootOf, savedConfig } from "./saved-config.ts";
import { type BootOptions, loadVm, startVm } from "./start-vm.ts";
import { isAtRest, type SandboxedContainer, type SandboxState } from "./state.ts";
import type { TemplateSource, VmPool } from "./template-source.ts";

export interface SandboxDeps<C extends SandboxedContainer> {
  readonly hypervisor: Hypervisor;
  readonly acceleration: AccelerationProbe;
  readonly connectAgent: ConnectAgent;
  readonly cgroups: HostCgroups;
  readonly networks: Networks;
  /** `<root>/sandboxes` */
  readonly sandboxesDir: string;
  /** Sockets go to `<runDir>/<id>`. */
  readonly runDir: string;
  readonly schema: StateSchema<SandboxState<C>>;
  /** Without it every VM boots. */
  readonly templates?: TemplateSource | undefined;
  /** Without it no VM waits for it. */
  readonly pool?: VmPool | undefined;
  readonly disk: Disk;
  readonly lock: typeof acquireLock;
  readonly clock: Clock;
  readonly log: Log;
  /** Who has which PCI device of this host. */
  readonly vfioClaims: VfioClaims;
}

export type StateListener<C extends SandboxedContainer> = (before: SandboxState<C>, after: SandboxState<C>) => void;

/** Serial number of the disk that holds the guest's own root file system. */
export const ROOT_SERIAL = "root";

export class Sandbox<C extends SandboxedContainer> {
  readonly id: string;
  readonly log: Log;
  /** What is plugged into it, its containers' disks included. */
  readonly devices: DeviceManager;
  readonly #deps: SandboxDeps<C>;
  readonly #record: SandboxRecord<C>;
  readonly #turns: Turns;
  readonly #lock: KeptLock;
  readonly #listeners = new Set<StateListener<C>>();
  /** Waiters to be told when there is no sandbox any more. */
  readonly #gone = new AbortController();
  #attaching: Promise<void> | undefined;
  #machine: Machine | undefined;

  private constructor(
    deps: SandboxDeps<C>,
    record: SandboxRecord<C>,
    lock: KeptLock = new KeptLock(sandboxLimits.lockKeepMs),
  ) {
    this.#lock = lock;
    this.id = record.state.id;
    this.log = deps.log.with({ sandbox: this.id });
    this.#deps = deps;
    this.#record = record;
    this.#turns = new Turns(`sandbox ${this.id}`);
    this.devices = new DeviceManager(
      {
        place: {
          sandboxId: this.id,
          runDir: join(deps.runDir, this.id),
          rootDir: dirname(deps.sandboxesDir),
          vfioClaims: deps.vfioClaims,
        },
        vm: () => this.machine.vm,
        whileAlive: (work) => this.machine.whileAlive(work),
        findInGuest: (question, signal) => this.#findInGuest(question, signal),
        write: () => this.update((state) => ({ ...state, vm: this.#machine?.vm.save() ?? state.vm })),
        log: this.log,
      },
      record.state.devices ?? [],
    );
    if (record.state.network !== undefined) deps.networks.adopt(record.state.network);
  }

  /** Writes the first state: from then on a successor finds the sandbox. */
  static async create<C extends SandboxedContainer>(deps: SandboxDeps<C>, state: SandboxState<C>): Promise<Sandbox<C>> {
    return new Sandbox(deps, await SandboxRecord.create(deps, state));
  }

  /**
   * Reads a state that another process wrote; nobody changes it meanwhile. One at rest is taken as it is read, in one piece as it was
   * written: a lock costs a child process, and a root may hold thousands of them.
   * @throws BelljarError `STATE_MISSING`, `STATE_CORRUPT`, `STATE_VERSION`, `LOCKED`
   */
  static async restore<C extends SandboxedContainer>(deps: SandboxDeps<C>, id: string): Promise<Sandbox<C>> {
    const dir = join(deps.sandboxesDir, id);
    const record = await SandboxRecord.open(deps, dir);
    if (isAtRest(record.state)) return new Sandbox(deps, record);
    const lock = new KeptLock(sandboxLimits.lockKeepMs);
    try {
      await using _lock = await lockToRead(deps.lock, dir, id, lock);
      return new Sandbox(deps, await SandboxRecord.open(deps, dir), lock);
    } catch (error) {
      await lock.close();
      throw error;
    }
  }

  get state(): SandboxState<C> {
    return this.#record.state;
  }

  /** The whole of it, as plain data: what `restore` would find. */
  save(): SandboxState<C> {
    return this.#record.state;
  }

  get vfioSettings(): VfioSettings {
    return this.state.settings.vfio ?? VFIO_DEFAULTS;
  }

  /** What a container is told of its PCI devices. */
  pciDevicesOf(containerId: string): Promise<GuestPciDevices> {
    return guestPciDevices(this.#deps.vfioClaims, this.devices.save(), containerId);
  }

  get clock(): Clock {
    return this.#deps.clock;
  }

  get disksDir(): string {
    return join(this.#record.dir, "disks");
  }

  /** The file that its memory is mapped from, while it is a copy of something. */
  get memoryPath(): string {
    return join(this.#record.dir, "memory");
  }

  /** Checkpoints of its own, from which it goes on in place. */
  get savedDir(): string {
    return join(this.#record.dir, "saved");
  }

  get logsDir(): string {
    return join(this.#record.dir, "logs");
  }

  /** Fires when the sandbox was deleted, or this process let go of it; the reason is the error for whoever waits. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  get hasMachine(): boolean {
    return this.#machine !== undefined;
  }

  /** @throws BelljarError `VMM_DIED` when there is no VM */
  get machine(): Machine {
    throwIfAborted(this.gone);
    if (this.#machine !== undefined) return this.#machine;
    if (this.state.vm === undefined) throw new BelljarError("VMM_DIED", `sandbox ${this.id} has no VM`);
    throw new BelljarError("VMM_SILENT", `the VM of sandbox ${this.id} has not answered its new owner yet`);
  }

  /** Told of every change of the state, in order; the answered function ends it. */
  listen(listener: StateListener<C>): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async update(change: (state: SandboxState<C>) => SandboxState<C>, options?: WriteOptions): Promise<void> {
    const [before, after] = await this.#record.update((state) => this.#withDevices(state, change(state)), options);
    if (before !== after) for (const listener of this.#listeners) listener(before, after);
  }

  /** Waits until `pick` finds something in the state. @throws BelljarError `SANDBOX_NOT_FOUND` when it is deleted first */
  async until<T>(pick: (state: SandboxState<C>) => T | undefined, signal?: AbortSignal): Promise<T> {
    throwIfAborted(signal);
    throwIfAborted(this.gone);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const look = (): void => {
      try {
        const found = pick(this.state);
        if (found !== undefined) resolve(found);
      } catch (error) {
        reject(error);
      }
    };
    const stop = this.listen(look);
    const onGone = (): void => reject(cancelledError(this.gone));
    const onAbort = (): void => reject(cancelledError(signal));
    this.gone.addEventListener("abort", onGone, { once: true });
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      look();
      return await promise;
    } finally {
      stop();
      this.gone.removeEventListener("abort", onGone);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /**
   * Runs `work` when everything asked before it is done, alone in this process and under the directory's lock.
   * @throws BelljarError `SANDBOX_NOT_FOUND` when the sandbox was deleted meanwhile, `LOCKED`
   */
  async exclusive<T>(what: string, work: () => Promise<T>, options: ExclusiveOptions = {}): Promise<T> {
    throwIfAborted(this.gone);
    let hasBegun = false;
    const turn = this.#turns.take(async () => {
      hasBegun = true;
      throwIfAborted(this.gone);
      throwIfAborted(options.signal);
      const { pending } = this.state;
      if (pending?.operation === "delete" && options.evenWhenDeleting !== true) {
        throw new BelljarError("SANDBOX_NOT_FOUND", `sandbox ${this.id} is being deleted`);
      }
      await using _lock = await this.#lock.use(() =>
        lockDirectory(this.#deps.lock, this.#record.dir, {
          mode: "exclusive",
          timeoutMs: sandboxLimits.lockTimeoutMs,
          what: `sandbox ${this.id}, to ${what} it`,
          signal: options.signal,
        }),
      );
      return await work();
    });
    try {
      return await abortable(turn, options.signal);
    } catch (error) {
      // What has begun undoes itself when it sees the signal; only the waiting for one's turn ends at once.
      if (hasBegun || options.signal?.aborted !== true) return await turn;
      turn.catch(() => {});
      throw error;
    }
  }

  /**
   * Starts a VM of the guest image: from a template where there may be one, otherwise by booting. Resolves as soon as the VMM answers;
   * the agent may not yet.
   */
  async boot(image: GuestImage, size: VmSize, options: BootOptions = {}): Promise<void> {
    const { signal } = options;
    const { settings } = this.state;
    const { acceleration } = await this.#deps.acceleration.resolve(settings.acceleration, signal);
    const runDir = join(this.#deps.runDir, this.id);
    await mkdir(runDir, { recursive: true, mode: 0o700 });
    await chmod(runDir, 0o700);
    const { disks, devices } = await this.devices.coldPlug(signal);
    const cgroups = await makeCgroup(this, this.#deps.cgroups);
    const network = await makeNetwork(this, this.#deps.networks, runDir, signal);
    const config: VmConfig = {
      id: this.id,
      runDir,
      acceleration,
      ...size,
      ...growthOf(settings, size, acceleration),
      boot: bootOf(image),
      sharedMemory: settings.vhostUser === true,
      wakePort: true,
      disks: [{ serial: ROOT_SERIAL, path: image.rootPath, format: "raw", readOnly: true }, ...disks],
      devices,
      ...(network === undefined ? {} : { networkNamespace: networkPath(network) }),
      ...(needsSwitch(this.vfioSettings) ? { switchPorts: vmmLimits.switchPortsDefault } : {}),
    };
    const vm = await startVm(
      { ...this.#deps, log: this.log },
      { config, guestImage: image.digest, settings, memoryPath: this.memoryPath, network },
      {
        ...options,
        onSpawn: ({ pid }) => this.#deps.cgroups.add(cgroups, pid),
      },
    );
    this.#machine = new Machine(this.#machineDeps(), vm, { id: this.id, settings, ...this.#names });
    // All kinds of networks start from the same template, which has none. The guest finds it while it does other things.
    for (const nic of missingNics(vm.save(), network)) await this.#machine.whileAlive(vm.plugDevice(nic));
    await this.update((state) => ({
      ...state,
      vm: vm.save(),
      runDir,
      guestImage: image.digest,
      agentInstance: undefined,
    }));
  }

  /**
   * Starts the VM that was saved, which is paused then: the same devices, its memory and their state put into it, its disks as `saved`
   * says. Its containers' processes belong to the agent that runs in it.
   */
  async load(image: GuestImage, saved: VmState, source: LoadSource, options: BootOptions = {}): Promise<void> {
    const { settings } = this.state;
    const runDir = join(this.#deps.runDir, this.id);
    await mkdir(runDir, { recursive: true, mode: 0o700 });
    await chmod(runDir, 0o700);
    const grouping = makeCgroup(this, this.#deps.cgroups);
    grouping.catch(() => {});
    const network = await makeNetwork(this, this.#deps.networks, runDir, options.signal).finally(() => grouping);
    const cgroups = await grouping;
    // The kernel takes its time for that, in which the rest is done.
    let grouped = Promise.resolve();
    const { devices, later } = placeNics(saved.devices ?? [], network);
    const { vm, stoppedAtMs, link } = await loadVm(
      { ...this.#deps, network, source, log: this.log },
      {
        ...savedConfig(saved),
        devices,
        id: this.id,
        runDir,
        boot: bootOf(image),
        networkNamespace: network === undefined ? undefined : networkPath(network),
        ...(source.memory && {
          memoryFile: { ...source.memory, use: "private", path: await linkMemory(source.memory.path, this.memoryPath) },
        }),
      },
      {
        signal: options.signal,
        onSpawn: ({ pid }) => {
          grouped = this.#deps.cgroups.add(cgroups, pid);
          return grouped;
        },
        loadDevicesFrom: source.devices.path,
        loadDevicesAt: source.devices.at,
        fillMemory: source.fillMemory,
      },
    );
    this.#machine = new Machine(this.#machineDeps(link), vm, {
      id: this.id,
      settings,
      agentInstance: source.agentInstance,
      returning: { ...source.returning, stoppedAtMs, network: () => guestWords(this) },
      ...this.#names,
    });
    for (const nic of later) await this.#machine.whileAlive(vm.plugDevice(nic));
    const loaded = { vm: vm.save(), runDir, guestImage: image.digest };
    const { agentInstance, returning } = source;
    // Whoever finds a copy that is not whole ends its VM by what runs, and removes it.
    const withNext = this.state.pending?.operation === "create";
    await this.update((state) => ({ ...state, ...loaded, agentInstance, returning }), { withNext });
    await grouped;
  }

  /**
   * Takes over the VM that the state names; who asks while it is being done waits for the same. `doubtful` disks and devices may be plugged
   * without the state saying so.
   * @throws BelljarError `VMM_DIED`, or what the VMM answered
   */
  async attach(doubtful: readonly DiskConfig[], doubtfulDevices: readonly DeviceConfig[] = []): Promise<void> {
    this.#attaching ??= this.#attach(doubtful, doubtfulDevices).finally(() => {
      this.#attaching = undefined;
    });
    await this.#attaching;
  }

  async #attach(doubtful: readonly DiskConfig[], doubtfulDevices: readonly DeviceConfig[]): Promise<void> {
    const { vm: saved, settings, agentInstance, returning } = this.state;
    if (saved === undefined) throw new BelljarError("VMM_DIED", `the state of sandbox ${this.id} names no VM`);
    const own: Doubtful = { disks: doubtful, devices: doubtfulDevices };
    const nics: Doubtful = { disks: [], devices: doubtfulNics(this.state.network) };
    const vm = await this.#deps.hypervisor.attach(withDoubtful(saved, own, nics, this.devices.doubtful()));
    if (this.gone.aborted) return await vm.release();
    const isInDoubt = returning?.toldAtMs === undefined;
    const told = returning && { ...returning, network: () => guestWords(this), isInDoubt };
    const known = { agentInstance, ...this.#names, returning: told };
    this.#machine = new Machine(this.#machineDeps(), vm, { id: this.id, settings, ...known });
  }

  /** Calls back once when the VM ends without this process having asked for it. */
  onVmEnd(callback: (error: BelljarError) => void): void {
    const machine = this.#machine;
    void machine?.vm.ended.then((end: VmEnd) => {
      if (this.#machine === machine) callback(endError(this.id, end));
    });
  }

  /** Waits for the agent, and remembers which start of it this is. */
  async agent(signal?: AbortSignal): Promise<void> {
    const instance = await this.machine.agent(signal);
    if (this.state.agentInstance !== instance) {
      await configureGuest(this, signal);
      await this.update((state) => ({ ...state, agentInstance: instance }));
    }
    if (this.state.returning !== undefined) await this.update((state) => ({ ...state, returning: undefined }));
    await this.devices.findAll(signal);
  }

  /** Packets of the guest that the rules of its network have dropped or refused; undefined without a network. */
  async deniedPackets(): Promise<number | undefined> {
    const { network } = this.state;
    return network === undefined ? undefined : await this.#deps.networks.denied(network);
  }

  get networks(): Networks {
    return this.#deps.networks;
  }

  /** Written together with what is plugged into the VM. */
  async setNetwork(network: NetworkState): Promise<void> {
    await this.update((state) => ({ ...state, network, vm: this.machine.vm.save() }));
  }

  /** Tells the guest of the network that it has now; nothing for one without. */
  configureNetwork(signal?: AbortSignal): Promise<void> {
    return configureGuest(this, signal);
  }

  call<M extends AgentMethod>(method: M, request: AgentRequest<M>, options?: CallOptions): Promise<AgentResponse<M>> {
    return this.machine.call(method, request, options);
  }

  /** What the VM has; without one, what was asked for. */
  get size(): VmSize {
    const { vm, settings } = this.state;
    if (this.#machine !== undefined) return knownSize(this.#machine.vm);
    if (vm === undefined) return { memoryMib: settings.memoryMib, cpus: settings.cpus };
    return { memoryMib: vm.memoryMib + (vm.pluggedMemoryMib ?? 0), cpus: vm.cpus + (vm.pluggedCpus ?? 0) };
  }

  /** What it may have at most: while it has a VM, what that was started for. */
  get maxSize(): VmSize {
    const { vm, settings } = this.state;
    if (vm === undefined) return maxSize(settings);
    return { memoryMib: vm.memoryMaxMib ?? vm.memoryMib, cpus: vm.cpusMax ?? vm.cpus };
  }

  /** Brings the running VM to this size, and the state up to date whatever becomes of it. */
  async resize(wanted: VmSize, options?: ResizeMachineOptions): Promise<void> {
    const { machine } = this;
    try {
      await resizeMachine(machine, wanted, options);
    } finally {
      if (this.hasMachine) await this.update((state) => ({ ...state, vm: machine.vm.save() }), { force: true });
    }
  }

  /** Plugs a container's disk unless it is there; the guest finds it by its serial number. */
  plugDisk(disk: DiskConfig, containerId: string): Promise<void> {
    return this.devices.addDisk(disk, containerId);
  }

  /** Unplugs a container's disk, unless another container has it; one that is not there is success. */
  unplugDisk(serial: string, containerId: string): Promise<void> {
    return this.devices.removeDisk(serial, containerId);
  }

  async growDisk(serial: string, sizeBytes: number): Promise<void> {
    const { machine } = this;
    await machine.whileAlive(machine.vm.growDisk(serial, sizeBytes));
  }

  /**
   * Ends the VM, if there is one, and removes its sockets.
   * @param keepDevices another VM will go on with what is plugged into this one
   */
  async endVm({ keepDevices = false }: { readonly keepDevices?: boolean } = {}): Promise<void> {
    const machine = this.#machine;
    this.#machine = undefined;
    if (machine !== undefined) await machine.kill();
    else if (this.state.vm !== undefined) await endProcess(this.state.vm.vmm);
    const runDir = join(this.#deps.runDir, this.id);
    if (!keepDevices) await this.devices.vmEnded();
    await this.#returnPciDevices();
    if (this.state.settings.vhostUser === true) await endBackEndsOf(runDir);
    await this.#deps.cgroups.remove(this.state.cgroups ?? []);
    await removeNetwork(this, this.#deps.networks);
    await rm(runDir, { recursive: true, force: true });
    await rm(this.memoryPath, { force: true });
  }

  /** Removes every trace; the VM must have ended. Whoever waits for something is told. */
  async remove(): Promise<void> {
    await this.#record.remove();
    await this.#lock.close();
    this.#gone.abort(new BelljarError("SANDBOX_NOT_FOUND", `sandbox ${this.id} was deleted`));
  }

  /** Lets go of the VM, which runs on. */
  async release(): Promise<void> {
    this.#gone.abort(new BelljarError("CANCELLED", `this process has let go of sandbox ${this.id}`));
    const machine = this.#machine;
    this.#machine = undefined;
    await machine?.release();
    // What was under way sees that, and ends; the next owner must not find it writing.
    await this.#turns.take(async () => {});
    await this.#lock.close();
  }

  get #names(): NamesOfOthers {
    return namesOfOthers(this, this.#deps.networks);
  }

  /** What is left of them when every device was given back; what cannot be now is left to the next owner of the root. */
  async #returnPciDevices(): Promise<void> {
    const holder = { rootDir: dirname(this.#deps.sandboxesDir), sandboxId: this.id };
    await this.#deps.vfioClaims.giveBackAll(holder).catch((error: unknown) => {
      this.log.warn("a device could not be given back to the host", { cause: messageChain(error).join(": ") });
    });
  }

  async #findInGuest(question: GuestQuestion, signal: AbortSignal | undefined): Promise<readonly GuestNode[]> {
    const { serial, port, modules, unused, noNodes } = question;
    const path = port === undefined ? undefined : [...guestPortPath(port), "00.0"];
    const where = path === undefined ? { disk: { serial: serial ?? "" } } : { pci: { path } };
    const { nodes } = await this.call("findDevice", { ...where, modules: [...modules], unused, noNodes }, { signal });
    return nodes.slice(0, deviceLimits.nodesMax).map(({ name, block, major, minor }) => ({
      name: name.replaceAll(/[^ -~]/g, "?").slice(0, 255),
      type: block ? "block" : "character",
      major,
      minor,
    }));
  }

  /** The devices are part of every state that is written. */
  #withDevices(before: SandboxState<C>, after: SandboxState<C>): SandboxState<C> {
    const now = this.devices.save();
    if (after.devices === now || (after.devices === undefined && now.length === 0)) return after;
    if (before === after && (after.devices ?? []).length === now.length) return after;
    return { ...after, devices: now.length === 0 ? undefined : now };
  }

  #machineDeps(link?: AgentLink): MachineDeps {
    const { connectAgent, clock } = this.#deps;
    return {
      connectAgent: keptLink(link, connectAgent),
      clock,
      log: this.log,
      containers: () => this.state.containers,
    };
  }
}

export interface ExclusiveOptions {
  readonly signal?: AbortSignal | undefined;
  readonly evenWhenDeleting?: boolean | undefined;
}
