/**
 * The PID namespace that the containers of the sandbox share when they ask for it. Its first process is the agent's: made on
 * demand, in a container of its own that has nothing but busybox and no capabilities, so that looking into it is of no use. It
 * stays as long as the guest; a container that ends takes nobody else with it.
 */
import { mkdir, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ContainerRuntime } from "./runtime.ts";
import { busyboxMount, waitingCommand } from "./waiting-process.ts";

export interface SharedPidsDeps {
  readonly runtime: ContainerRuntime;
  /** For its bundle. */
  readonly dir: string;
  readonly procDir: string;
}

/** No container can have it: ids from the host begin with a letter or digit. */
const ID = "_pids";
/** Beside the containers' group: their lack of memory must not end it. */
const CGROUP = "/belljar.pids";
const BUSYBOX = "/busybox";

export class SharedPids {
  readonly #deps: SharedPidsDeps;
  #pid: Promise<number> | undefined;

  constructor(deps: SharedPidsDeps) {
    this.#deps = deps;
  }

  /** The namespace's file, for a container to join. @throws BelljarError `CONTAINER_START_FAILED` */
  async namespacePath(): Promise<string> {
    this.#pid ??= this.#start();
    return `${this.#deps.procDir}/${await this.#pid}/ns/pid`;
  }

  async #start(): Promise<number> {
    const { dir, runtime } = this.#deps;
    const devNull = await open("/dev/null", "r+");
    try {
      await rm(dir, { recursive: true, force: true });
      await mkdir(join(dir, "rootfs"), { recursive: true, mode: 0o700 });
      await writeFile(join(dir, "config.json"), JSON.stringify(specification(join(dir, "rootfs"))));
      const { pid, exited } = await runtime.launch({
        containerId: ID,
        dir,
        what: { bundle: dir },
        stdin: "ignore",
        stdout: devNull.fd,
        stderr: devNull.fd,
        terminal: false,
      });
      // With its end the namespace is gone, and everything in it; whoever comes next gets a new one.
      void exited.then(() => {
        this.#pid = undefined;
      });
      return pid;
    } catch (error) {
      this.#pid = undefined;
      throw error;
    } finally {
      await devNull.close();
    }
  }
}

function specification(rootfs: string): object {
  const { source, destination, options } = busyboxMount(BUSYBOX);
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: waitingCommand(BUSYBOX),
      env: [],
      cwd: "/",
      capabilities: {},
      noNewPrivileges: true,
      oomScoreAdj: -999,
    },
    root: { path: rootfs, readonly: true },
    mounts: [
      // For /dev/null, which a shell gives to what it starts in the background.
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "noexec", "mode=755", "size=64k"] },
      { destination, type: "bind", source, options: ["bind", ...options] },
    ],
    linux: {
      namespaces: ["pid", "ipc", "uts", "mount", "cgroup", "network"].map((type) => ({ type })),
      cgroupsPath: CGROUP,
    },
  };
}
