/**
 * One VM and its agent, from the first directory to the last file removed. The only composer of the parts: everything below
 * this folder is handed in through `SandboxDeps`.
 *
 * Order of creation: record on disk (so that a successor finds whatever follows), VM, agent. Deletion goes the other way, and
 * the record is removed last. A failed creation leaves nothing.
 */
import { randomBytes } from "node:crypto";
import { chmod, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type AgentCaller, AgentClient, type ConnectAgent } from "../agent-client/index.ts";
import { BelljarError, type Clock, cancelledError, type Log, throwIfAborted } from "../base/index.ts";
import type { GuestImage } from "../guest/index.ts";
import type { Acceleration, AccelerationProbe, DiskConfig, Hypervisor, Vm, VmEnd } from "../hypervisor/interface.ts";
import type { SandboxSettings } from "./config.ts";
import { SandboxRecord } from "./record.ts";

export interface SandboxDeps {
  readonly hypervisor: Hypervisor;
  readonly acceleration: AccelerationProbe;
  readonly guestImage: GuestImage;
  readonly connectAgent: ConnectAgent;
  /** `<root>/sandboxes` */
  readonly sandboxesDir: string;
  /** Sockets go to `<runDir>/<id>`. */
  readonly runDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

export interface SandboxInfo {
  readonly id: string;
  readonly name: string;
  readonly acceleration: Acceleration;
  readonly vmmPid: number;
}

/** Fresh random bytes for the guest's kernel: twice what its generator holds. */
const ENTROPY_BYTES = 64;

/** Serial number of the disk that holds the guest's own root file system. */
const ROOT_SERIAL = "root";

export class Sandbox implements AsyncDisposable {
  readonly id: string;
  readonly settings: SandboxSettings;
  readonly #deps: SandboxDeps;
  readonly #record: SandboxRecord;
  readonly #vm: Vm;
  readonly #log: Log;
  /** How many users a plugged disk has: layers are shared by the containers of a sandbox. */
  readonly #disks = new Map<string, { users: number; plugged: Promise<void> }>();
  readonly #agent: AgentClient;
  #ready: Promise<void> | undefined;
  /** Fires when the sandbox is deleted: nobody goes on connecting then. */
  readonly #lifetime = new AbortController();
  #deleted: Promise<void> | undefined;

  private constructor(deps: SandboxDeps, settings: SandboxSettings, record: SandboxRecord, vm: Vm) {
    this.id = record.state.id;
    this.settings = settings;
    this.#deps = deps;
    this.#record = record;
    this.#vm = vm;
    this.#log = deps.log.with({ sandbox: this.id });
    this.#agent = new AgentClient(
      {
        socketPath: vm.agentSocketPath,
        timeoutMs: settings.bootTimeoutMs,
        signal: this.#lifetime.signal,
        log: this.#log,
      },
      deps.connectAgent,
    );
  }

  /**
   * Starts a VM. Resolves as soon as the VMM answers; the guest still boots then, and `agent()` waits for it.
   * @throws BelljarError of the hypervisor, `SANDBOX_EXISTS`, `CANCELLED`; nothing is left behind.
   */
  static async create(
    deps: SandboxDeps,
    id: string,
    image: string,
    settings: SandboxSettings,
    signal?: AbortSignal,
  ): Promise<Sandbox> {
    throwIfAborted(signal);
    const { acceleration } = await deps.acceleration.resolve(settings.acceleration, signal);
    const runDir = join(deps.runDir, id);
    const record = await SandboxRecord.create(deps.sandboxesDir, {
      id,
      name: settings.name,
      createdAtMs: deps.clock.nowMs(),
      image,
      runDir,
    });
    let vm: Vm | undefined;
    try {
      await makePrivateDirectory(runDir);
      vm = await deps.hypervisor.start(
        {
          id,
          runDir,
          acceleration,
          memoryMib: settings.memoryMib,
          cpus: settings.cpus,
          boot: {
            kernelPath: deps.guestImage.kernelPath,
            initrdPath: deps.guestImage.initrdPath,
            kernelArguments: deps.guestImage.kernelArguments,
          },
          disks: [{ serial: ROOT_SERIAL, path: deps.guestImage.rootPath, format: "raw", readOnly: true }],
        },
        { signal },
      );
      await record.update({ vm: vm.save() });
      return new Sandbox(deps, settings, record, vm);
    } catch (error) {
      await vm?.kill();
      await rm(runDir, { recursive: true, force: true });
      await record.remove();
      throw error;
    }
  }

  /** Directory of this sandbox's own disks. */
  get disksDir(): string {
    return this.#record.disksDir;
  }

  get vmEnded(): Promise<VmEnd> {
    return this.#vm.ended;
  }

  /**
   * The agent, once it has answered.
   * @throws BelljarError `AGENT_TIMEOUT`, `AGENT_VERSION`, `GUEST_PANIC`, `VMM_DIED`, `CANCELLED`
   */
  async agent(signal?: AbortSignal): Promise<AgentCaller> {
    try {
      this.#ready ??= this.#introduce();
      await this.whileAlive(abortable(this.#ready, signal));
      return this.#agent;
    } catch (error) {
      this.#ready = undefined;
      throw this.#withConsole(BelljarError.from(error));
    }
  }

  /** Plugs a disk, once however many ask for it; the guest finds it by its serial number. */
  async plugDisk(disk: DiskConfig): Promise<void> {
    const known = this.#disks.get(disk.serial);
    if (known !== undefined) {
      known.users += 1;
      await known.plugged;
      return;
    }
    const plugged = this.#vm.plugDisk(disk);
    this.#disks.set(disk.serial, { users: 1, plugged });
    try {
      await plugged;
    } catch (error) {
      this.#disks.delete(disk.serial);
      throw error;
    }
  }

  async unplugDisk(serial: string): Promise<void> {
    const known = this.#disks.get(serial);
    if (known === undefined) return;
    known.users -= 1;
    if (known.users > 0) return;
    this.#disks.delete(serial);
    await this.#vm.unplugDisk(serial);
  }

  /** Runs `work`, and fails with the VM's end if that comes first: nobody waits for an answer from the dead. */
  async whileAlive<T>(work: Promise<T>): Promise<T> {
    const died = this.#vm.ended.then((end) => {
      throw this.#endError(end);
    });
    died.catch(() => {});
    return await Promise.race([work, died]);
  }

  async info(): Promise<SandboxInfo> {
    const vm = await this.#vm.info();
    return { id: this.id, name: this.settings.name, acceleration: vm.acceleration, vmmPid: vm.pid };
  }

  /** Ends the VM and removes every trace. Idempotent, and joins a deletion under way. */
  delete(): Promise<void> {
    this.#deleted ??= this.#delete();
    return this.#deleted;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }

  async #delete(): Promise<void> {
    this.#lifetime.abort();
    await this.#agent.close();
    await this.#vm.kill();
    await rm(join(this.#deps.runDir, this.id), { recursive: true, force: true });
    await this.#record.remove();
    this.#log.debug("sandbox deleted");
  }

  /** Waits for the agent, and tells the guest who it is and what time it is. */
  async #introduce(): Promise<void> {
    await this.#agent.hello();
    await this.#agent.call("configureSandbox", {
      hostname: this.settings.hostname,
      realtimeNs: BigInt(this.#deps.clock.nowMs()) * 1_000_000n,
      entropy: randomBytes(ENTROPY_BYTES),
    });
  }

  #endError(end: VmEnd): BelljarError {
    switch (end.cause) {
      case "requested":
        return new BelljarError("VMM_DIED", `sandbox ${this.id} was ended while it was in use`);
      case "guest":
        return new BelljarError(
          end.panic ? "GUEST_PANIC" : "VMM_DIED",
          end.panic ? `the guest's kernel panicked: ${end.detail}` : `the guest powered off by itself: ${end.detail}`,
        );
      case "died":
        return new BelljarError("VMM_DIED", `the VM's process ended: ${end.detail}`);
    }
  }

  /** An agent that does not answer has no words of its own; the guest's console may. */
  #withConsole(error: BelljarError): BelljarError {
    if (error.reason !== "AGENT_TIMEOUT") return error;
    const tail = this.#vm.consoleTail().trim();
    if (tail === "") return error;
    return new BelljarError(error.reason, `${error.message}; the guest's console says: ${tail}`, {
      facts: error.facts,
      cause: error.cause,
    });
  }
}

/** Stops waiting, not the work, when the signal fires. */
async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  throwIfAborted(signal);
  if (signal === undefined) return await work;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledError(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

async function makePrivateDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  await chmod(path, 0o700);
}
