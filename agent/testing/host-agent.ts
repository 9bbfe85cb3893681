/** A whole agent on this host: everything is real but the port, the mounts, and (unless told otherwise) the containers. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cgroups } from "../cgroups.ts";
import { PipeMaker } from "../pipes.ts";
import type { RootfsMounter } from "../rootfs.ts";
import { AgentServer } from "../server.ts";
import { createHandlers } from "../service.ts";
import { System } from "../system.ts";
import { runTool } from "../tools.ts";
import { PlainRuntime } from "./plain-runtime.ts";
import { SocketPort } from "./socket-port.ts";

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
    return rootfs;
  },
  unmount: async (dir) => await rm(join(dir, "rootfs"), { recursive: true, force: true }),
};

export async function startHostAgent(): Promise<HostAgent> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-agent-"));
  const socketPath = join(dir, "agent.sock");
  const port = await SocketPort.listen(socketPath);
  const runtime = new PlainRuntime();
  const handlers = createHandlers({
    // Host name and clock of this host stay as they are: /proc and /dev are not the real ones where they are written to.
    system: new System({
      runTool: async () => {},
      procDir: "/proc",
      devDir: dir,
      resolvConf: join(dir, "resolv.conf"),
      nowMs: () => Date.now(),
    }),
    runTool,
    procDir: "/proc",
    instance: "0123456789abcdef",
    pipes: new PipeMaker(join(dir, "pipes"), runTool),
    runtime,
    mounter: directoryMounter,
    cgroups: new Cgroups(join(dir, "cgroup")),
    containersDir: join(dir, "containers"),
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
