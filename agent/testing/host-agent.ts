/** A whole agent on this host: everything is real but the port, the mounts, and (unless told otherwise) the containers. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { PlannedInterface } from "../../src/protocol/wake.ts";
import { Cgroups } from "../cgroups.ts";
import { GuestMounts } from "../guest-mounts.ts";
import { IdentityFiles } from "../identity-files.ts";
import { NameFiles } from "../name-files.ts";
import { PipeMaker } from "../pipes.ts";
import { randomUuid } from "../random.ts";
import type { RootfsMounter } from "../rootfs.ts";
import { AgentServer } from "../server.ts";
import { createHandlers } from "../service.ts";
import { SharedMemory } from "../shared-memory.ts";
import { SharedPids } from "../shared-pids.ts";
import { Swap } from "../swap.ts";
import { System } from "../system.ts";
import { runTool } from "../tools.ts";
import { PlainRuntime } from "./plain-runtime.ts";
import { SocketPort } from "./socket-port.ts";

/** Of a guest that it is not in. */
const INTERFACE: PlannedInterface = {
  index: 2,
  name: "eth0",
  macAddress: "02:00:00:00:00:01",
  mtu: 1500,
  addresses: ["10.0.2.15/32"],
};

export interface HostAgentOptions {
  readonly processesMax?: number;
  readonly preparedProgram?: string;
}

export interface HostAgent extends AsyncDisposable {
  readonly dir: string;
  readonly socketPath: string;
  readonly port: SocketPort;
  readonly runtime: PlainRuntime;
}

/** An empty root file system for each container, as a directory. */
const directoryMounter: RootfsMounter = {
  mount: async (dir) => {
    const rootfs = join(dir, "rootfs");
    await mkdir(rootfs);
    return { path: rootfs, filesDir: join(dir, "files") };
  },
  grow: async () => {},
  unmount: async (dir) => await rm(join(dir, "rootfs"), { recursive: true, force: true }),
};

/** Files of /proc, in a directory that may be written to: host name and clock of this host stay as they are. */
async function copyProc(dir: string): Promise<string> {
  const procDir = join(dir, "proc");
  for (const file of [
    "meminfo",
    "uptime",
    "net/dev",
    "sys/kernel/osrelease",
    "sys/kernel/hostname",
    "sys/vm/swappiness",
  ]) {
    await mkdir(dirname(join(procDir, file)), { recursive: true });
    await writeFile(join(procDir, file), await readFile(join("/proc", file)));
  }
  return procDir;
}

export async function startHostAgent(options: HostAgentOptions = {}): Promise<HostAgent> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-agent-"));
  const socketPath = join(dir, "agent.sock");
  const port = await SocketPort.listen(socketPath);
  const procDir = await copyProc(dir);
  const runtime = new PlainRuntime();
  const handlers = createHandlers({
    capacity: { fit: async (vm) => vm, makeRoom: async (vm) => vm },
    system: new System({ runTool: async () => {}, applyIdentity: async () => {}, procDir, nowMs: () => Date.now() }),
    runTool,
    procDir: "/proc",
    instance: "0123456789abcdef",
    pipes: new PipeMaker(join(dir, "pipes"), runTool),
    runtime,
    mounter: directoryMounter,
    cgroups: new Cgroups(join(dir, "cgroup")),
    names: new NameFiles(),
    disconnect: async () => {},
    hasWaker: () => true,
    interfaces: () => [INTERFACE],
    identity: new IdentityFiles({ dir: join(dir, "identity"), newUuid: randomUuid, nowMs: () => Date.now() }),
    sharedMemory: new SharedMemory(join(dir, "shm"), async () => {}),
    sharedPids: new SharedPids({ runtime, dir: join(dir, "pids"), procDir: "/proc" }),
    swap: new Swap({ runTool: async () => {}, procDir, sysDir: "/sys", devDir: dir }),
    mounts: new GuestMounts({ runTool: async () => {}, sysDir: "/sys", devDir: dir, disksDir: join(dir, "disks") }),
    containersDir: join(dir, "containers"),
    sysDir: "/sys",
    plugged: { runTool: async () => {}, sysDir: "/sys", devDir: "/dev" },
    ...options,
  });
  void new AgentServer(port, handlers).run();
  return {
    dir,
    socketPath,
    port,
    runtime,
    async [Symbol.asyncDispose]() {
      await port.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
