/**
 * A runtime on twins: VMs, guests and state files in memory, directories of the system, locks in this process. It can be left as a
 * killed owner leaves it, and opened again.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BelljarError, type Log, silentLog, systemClock } from "../../src/base/index.ts";
import { writeOverlay } from "../../src/container/qcow2.ts";
import { endBackEndsOf } from "../../src/devices/index.ts";
import { openRuntime, type RuntimeCore, type RuntimeDeps } from "../../src/runtime/index.ts";
import { systemError } from "../../src/store/disk.ts";
import { type acquireLock, type Disk, type DiskFile, systemDisk } from "../../src/store/index.ts";
import { type TestScope, tempDir } from "./harness.ts";
import { MemoryGuests } from "./memory-agent.ts";
import { MemoryCgroups } from "./memory-cgroups.ts";
import { MemoryGuestMemory } from "./memory-guest-memory.ts";
import { MemoryHypervisor } from "./memory-hypervisor.ts";
import { MemoryNetworks } from "./memory-networks.ts";
import { type MemoryPciFunction, MemoryPciHost } from "./memory-pci-host.ts";

export { systemError };

/** Files in memory, directories of the system: enough for state files, and a hundred times as fast. */
class MemoryFiles implements Disk {
  readonly files = new Map<string, Buffer>();

  async read(path: string): Promise<Uint8Array> {
    return this.#find(path);
  }

  async create(path: string): Promise<DiskFile> {
    if (this.files.has(path)) throw systemError("EEXIST", "file already exists", path);
    this.files.set(path, Buffer.alloc(0));
    return await this.append(path);
  }

  async append(path: string): Promise<DiskFile> {
    this.#find(path);
    return {
      write: async (data) => void this.files.set(path, Buffer.concat([this.#find(path), data])),
      sync: async () => {},
      close: async () => {},
    };
  }

  async rename(from: string, to: string): Promise<void> {
    if (!this.files.has(from)) await systemDisk.rename(from, to);
    for (const [path, data] of [...this.files]) {
      if (path !== from && !path.startsWith(`${from}/`)) continue;
      this.files.delete(path);
      this.files.set(to + path.slice(from.length), data);
    }
  }

  async unlink(path: string): Promise<void> {
    this.#find(path);
    this.files.delete(path);
  }

  list(path: string): Promise<string[]> {
    return systemDisk.list(path);
  }

  makeDirectory(path: string, mode: number): Promise<void> {
    return systemDisk.makeDirectory(path, mode);
  }

  async syncDirectory(): Promise<void> {}

  #find(path: string): Buffer {
    const found = this.files.get(path);
    if (found === undefined) throw systemError("ENOENT", "no such file or directory", path);
    return found;
  }
}

export class MemoryRuntime {
  readonly hypervisor = new MemoryHypervisor();
  readonly guests = new MemoryGuests(this.hypervisor);
  readonly memory = new MemoryGuestMemory();
  readonly networks = new MemoryNetworks();
  readonly cgroups = new MemoryCgroups();
  readonly pci: MemoryPciHost;
  readonly deps: RuntimeDeps;
  /** Path to its owners: how many share it, or that one has it alone. */
  readonly #locks = new Map<string, number | "exclusive">();
  #core: RuntimeCore | undefined;
  readonly #dead: RuntimeCore[] = [];

  private constructor(dir: string, log: Log, pci: MemoryPciHost) {
    this.pci = pci;
    this.deps = {
      hypervisor: this.hypervisor,
      acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
      guestImages: { current: async () => guestImage(dir), open: async () => guestImage(dir) },
      images: {
        hold: async (name) => {
          if (name !== "busybox") throw new BelljarError("IMAGE_NOT_FOUND", `there is no image ${name}`);
          return image(dir);
        },
      },
      connectAgent: this.guests.connect,
      memory: this.memory,
      cgroups: this.cgroups,
      networks: this.networks,
      rootDir: join(dir, "root"),
      runDir: join(dir, "run"),
      clock: systemClock,
      log,
      disk: new MemoryFiles(),
      lock: this.#lock,
      pci: { host: pci.host, claimsDir: join(dir, "claims") },
      makeDisk: async (path, sizeBytes, { format }) => {
        const dir = dirname(path);
        await mkdir(dir, { recursive: true });
        if (format !== "qcow2") return await writeFile(path, "x".repeat(512));
        await writeFile(join(dir, "blank.raw"), "");
        await writeOverlay({ path, sizeBytes, backingFile: "blank.raw", backingFormat: "raw" });
      },
    };
  }

  static async open(
    t: TestScope,
    change: Partial<RuntimeDeps> = {},
    pciFunctions: readonly MemoryPciFunction[] = [],
  ): Promise<MemoryRuntime> {
    const dir = await tempDir(t);
    const pci = await MemoryPciHost.make(join(dir, "host"), pciFunctions);
    const runtime = new MemoryRuntime(dir, silentLog, pci);
    Object.assign(runtime.deps, change);
    await runtime.reopen();
    // Programs behind devices are real ones, and outlive a test that fails in its middle.
    t.after(() => endBackEndsOf(runtime.deps.runDir));
    t.after(() => Promise.all([runtime.core, ...runtime.#dead].map((each) => each.release())));
    return runtime;
  }

  get core(): RuntimeCore {
    if (this.#core === undefined) throw new Error("the runtime is not open");
    return this.#core;
  }

  get sandboxesDir(): string {
    return join(this.deps.rootDir, "sandboxes");
  }

  stateFile(id: string): string {
    return join(this.sandboxesDir, id, "sandbox.json");
  }

  /** Another process becomes the owner. */
  async reopen(): Promise<RuntimeCore> {
    await this.#core?.release();
    this.#locks.clear();
    this.#core = await openRuntime(this.deps);
    return this.#core;
  }

  /** Another process becomes the owner while this one has died at a call that never comes back: the test holds it. */
  async takeOver(): Promise<RuntimeCore> {
    this.#dead.push(this.core);
    this.#core = undefined;
    return await this.reopen();
  }

  readonly #lock: typeof acquireLock = async (path, options) => {
    const endMs = performance.now() + options.timeoutMs;
    const isFree = (): boolean => {
      const owners = this.#locks.get(path);
      return owners === undefined || (owners !== "exclusive" && options.mode === "shared");
    };
    while (!isFree()) {
      if (performance.now() > endMs) throw new BelljarError("LOCKED", `another process uses ${options.what}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const owners = this.#locks.get(path);
    this.#locks.set(path, options.mode === "exclusive" ? "exclusive" : 1 + (typeof owners === "number" ? owners : 0));
    const release = async (): Promise<void> => {
      const left = this.#locks.get(path);
      if (typeof left === "number" && left > 1) this.#locks.set(path, left - 1);
      else this.#locks.delete(path);
    };
    return { path, mode: options.mode, release, [Symbol.asyncDispose]: release };
  };
}

function guestImage(dir: string): Awaited<ReturnType<RuntimeDeps["guestImages"]["current"]>> {
  return {
    digest: "0".repeat(64),
    dir,
    kernelPath: join(dir, "kernel"),
    initrdPath: join(dir, "initrd"),
    rootPath: join(dir, "root-image"),
    kernelArguments: [],
    get manifest(): never {
      throw new Error("nobody reads the manifest");
    },
  };
}

function image(dir: string): Awaited<ReturnType<RuntimeDeps["images"]["hold"]>> {
  return {
    name: "busybox:latest",
    digest: `sha256:${"1".repeat(64)}`,
    config: {
      entrypoint: [],
      cmd: ["run"],
      env: [],
      workingDir: "/",
      user: "",
      exposedPorts: [],
      volumes: [],
      stopSignal: "",
      labels: {},
    },
    layers: [{ diffId: `sha256:${"2".repeat(64)}`, path: join(dir, `${"2".repeat(64)}.erofs`), sizeBytes: 1 }],
    [Symbol.asyncDispose]: async () => {},
  };
}
