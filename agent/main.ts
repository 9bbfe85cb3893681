/**
 * The agent's program: wires the parts to the guest it runs in, and serves until the guest ends. The guest image holds it as
 * a start-up snapshot, taken when all modules are loaded: nothing at the top of any module may look at the machine it is on.
 */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { setFlagsFromString, startupSnapshot } from "node:v8";
import { messageChain } from "../src/base/errors.ts";
import { Capacity } from "./capacity.ts";
import { Cgroups } from "./cgroups.ts";
import { Crun } from "./crun.ts";
import { GuestMounts } from "./guest-mounts.ts";
import { IdentityProgram } from "./identity.ts";
import { IdentityFiles } from "./identity-files.ts";
import { NameFiles } from "./name-files.ts";
import { plannedInterfaces } from "./network-table.ts";
import { PipeMaker } from "./pipes.ts";
import { VirtioPort } from "./port.ts";
import { randomUuid } from "./random.ts";
import { rehearse } from "./rehearsal.ts";
import { OverlayMounter } from "./rootfs.ts";
import { AgentServer } from "./server.ts";
import { createHandlers } from "./service.ts";
import { SharedMemory } from "./shared-memory.ts";
import { SharedPids } from "./shared-pids.ts";
import { Swap } from "./swap.ts";
import { System } from "./system.ts";
import { GUEST_PATH, runTool } from "./tools.ts";
import { Waker } from "./waker.ts";

const RUN_DIR = "/run/belljar";

function report(what: string, thrown: unknown): void {
  process.stderr.write(`belljar agent: ${what}: ${messageChain(thrown).join(": ")}\n`);
}

async function main(): Promise<void> {
  // The agent moves bytes and waits; compiling it to machine code costs more than it brings, above all under emulation, where new
  // code must be translated once more. Without it, calls take about half the time, and the guest's memory stays smaller.
  for (const flag of ["--no-opt", "--no-maglev", "--no-sparkplug", "--regexp-interpret-all"]) setFlagsFromString(flag);
  // Reads and writes of the port wait in threads of their own; what else uses files must find free ones.
  process.env["UV_THREADPOOL_SIZE"] = "6";
  // One process's trouble must not end them all: the agent goes on and says what happened on the console.
  process.on("uncaughtException", (error) => report("unexpected error", error));
  process.env["PATH"] = GUEST_PATH;

  const procDir = "/proc";
  const devDir = "/dev";
  const identityProgram = new IdentityProgram();
  const system = new System({
    runTool,
    applyIdentity: identityProgram.apply,
    procDir,
    nowMs: () => Date.now(),
  });
  const cgroups = new Cgroups("/sys/fs/cgroup");
  const pipes = new PipeMaker(`${RUN_DIR}/pipes`, runTool);

  try {
    await system.protectAgent();
    // What waits for the host is as well protected as the agent.
    const port = await VirtioPort.open();
    await mkdir(RUN_DIR, { recursive: true, mode: 0o755 });
    const waker = new Waker();
    await waker.start();
    await cgroups.prepare();
    // Not those who wait for the host: they wake the agent.
    await cgroups.takeAgent();
    const capacity = new Capacity({ runTool, sysDir: "/sys", system, cgroups });
    await capacity.begin();
    pipes.prepare().catch((error: unknown) => report("pipes cannot be made", error));
    const disks = { runTool, procDir, sysDir: "/sys", devDir };
    const runtime = new Crun(`${RUN_DIR}/crun`);
    const handlers = createHandlers({
      system,
      capacity,
      runTool,
      disconnect: identityProgram.disconnect,
      procDir,
      hasWaker: () => waker.isThere,
      interfaces: () => plannedInterfaces(disks.sysDir),
      instance: randomBytes(8).toString("hex"),
      pipes,
      runtime,
      mounter: new OverlayMounter({ ...disks, layersDir: `${RUN_DIR}/layers` }),
      cgroups,
      names: new NameFiles(),
      identity: new IdentityFiles({ dir: `${RUN_DIR}/identity`, newUuid: randomUuid, nowMs: () => Date.now() }),
      sharedMemory: new SharedMemory(`${RUN_DIR}/shm`, runTool),
      sharedPids: new SharedPids({ runtime, dir: `${RUN_DIR}/pids`, procDir }),
      swap: new Swap(disks),
      mounts: new GuestMounts({ ...disks, disksDir: `${RUN_DIR}/disks` }),
      containersDir: `${RUN_DIR}/containers`,
      sysDir: disks.sysDir,
      plugged: disks,
    });
    await new AgentServer(port, handlers).run();
  } catch (error) {
    report("cannot go on", error);
    process.exit(1);
  }
}

if (startupSnapshot.isBuildingSnapshot()) {
  startupSnapshot.setDeserializeMainFunction(() => void main());
  void rehearse();
} else {
  void main();
}
