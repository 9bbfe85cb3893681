/**
 * Runs through the agent's calls once, without a guest, while its start-up snapshot is taken: what has run is compiled, and the
 * snapshot keeps it. Under emulation, where compiling is slow, the first real calls are then as quick as the later ones.
 *
 * Nothing may be left of it, no file, no open handle, no state in a module; and nothing of this machine or this moment may get
 * into the snapshot, which is to be the same bytes each time: no timer, no file's times, nothing random.
 */
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BelljarError } from "../src/base/errors.ts";
import { AgentService, encodeHello, encodeRequest, NONCE_LENGTH, PROTOCOL_VERSION } from "../src/protocol/index.ts";
import { IdentityFiles } from "./identity-files.ts";
import { NameFiles } from "./name-files.ts";
import type { Port } from "./port.ts";
import { AgentServer } from "./server.ts";
import { createHandlers } from "./service.ts";
import { completeProcess, completeSpec } from "./spec.ts";
import { withMounts } from "./spec-changes.ts";
import { resolveUser } from "./user.ts";

const methods = AgentService.method;
const CONTAINER = "rehearsal";
const UUID = "00000000-0000-4000-8000-000000000000";
const SPEC = {
  process: { args: ["true"], cwd: "/", env: [], user: { uid: 0, gid: 0 } },
  root: { path: "" },
  linux: {},
};

/** What a sandbox's first moments bring, in their order. */
function script(): Buffer[] {
  let streamId = -1;
  const call = <D extends DescMessage>(name: string, input: D, request: MessageInitShape<D>): Buffer => {
    streamId += 2;
    const payload = toBinary(input, create(input, request));
    // Without a deadline: a timer would leave the time of day in the snapshot.
    return encodeRequest(streamId, { service: AgentService.typeName, method: name, payload });
  };
  const address = { containerId: CONTAINER, processId: "" };
  return [
    encodeHello({ nonce: "0".repeat(NONCE_LENGTH), version: PROTOCOL_VERSION }),
    call("Hello", methods.hello.input, { protocolVersion: PROTOCOL_VERSION, hostVersion: "rehearsal" }),
    call("ConfigureSandbox", methods.configureSandbox.input, {
      hostname: CONTAINER,
      realtimeNs: 1n,
      entropy: Buffer.alloc(8),
      sandboxId: CONTAINER,
    }),
    call("GetGuestStats", methods.getGuestStats.input, {}),
    call("CreateContainer", methods.createContainer.input, {
      containerId: CONTAINER,
      specJson: Buffer.from(JSON.stringify(SPEC)),
      rootfs: { layers: [{ serial: "l-1" }], writable: { serial: "w-1" } },
    }),
    call("StartContainer", methods.startContainer.input, { containerId: CONTAINER, stdin: true }),
    call("ReadOutput", methods.readOutput.input, { ...address, stream: 1, maxBytes: 1 }),
    call("WriteInput", methods.writeInput.input, { ...address, data: Buffer.alloc(8) }),
    call("WaitProcess", methods.waitProcess.input, address),
    call("ListContainers", methods.listContainers.input, {}),
    call("Freeze", methods.freeze.input, {}),
    call("Thaw", methods.thaw.input, {
      event: "restored",
      sandboxId: CONTAINER,
      generation: 1,
      machineId: UUID.replaceAll("-", ""),
      bootId: UUID,
      endProcesses: true,
      sandbox: { hostname: CONTAINER, entropy: Buffer.alloc(8) },
    }),
    call("RemoveContainer", methods.removeContainer.input, { containerId: CONTAINER }),
  ];
}

/** Hands out the script, one piece after the answer to the one before, and then fails, which ends the server. */
class ScriptedPort implements Port {
  readonly #pieces = script();
  #answered: () => void = () => {};
  #answer: Promise<void> = Promise.resolve();

  async read(): Promise<Buffer> {
    await this.#answer;
    this.#answer = new Promise((resolve) => {
      this.#answered = resolve;
    });
    const piece = this.#pieces.shift();
    if (piece === undefined) throw new BelljarError("AGENT_DISCONNECTED", "the rehearsal is over");
    return piece;
  }

  async write(): Promise<void> {
    this.#answered();
  }
}

export async function rehearse(): Promise<void> {
  const unplayed = async (): Promise<never> => {
    throw new BelljarError("AGENT_FAILED", "this is not rehearsed");
  };
  const identity = new IdentityFiles({ dir: "/", newUuid: () => UUID, nowMs: () => 1, write: () => {} });
  identity.mounts();
  const handlers = createHandlers({
    system: {
      kernelRelease: async () => "",
      uptimeMs: async () => 1,
      realtimeNs: () => 1n,
      configure: async () => {},
      memory: async () => ({ totalBytes: 1, availableBytes: 1 }),
      networkDevices: async () => "",
      processCount: async () => 1,
      powerOff: async () => {},
    },
    capacity: { fit: async (vm) => vm, makeRoom: async (vm) => vm },
    runTool: async () => {},
    procDir: "/proc",
    disconnect: async () => {},
    hasWaker: () => true,
    interfaces: () => [],
    instance: "rehearsal",
    pipes: { open: unplayed },
    runtime: { launch: unplayed },
    mounter: { mount: unplayed, grow: async () => {}, unmount: async () => {} },
    cgroups: {
      create: async () => {},
      cgroupsPath: () => "/",
      oomKills: async () => 0,
      kill: async () => {},
      pids: async () => [],
      freeze: async () => {},
      freezeAll: async () => {},
      thaw: async () => {},
      thawAll: async () => {},
      thawPlan: () => ({ path: "/", text: "0" }),
      restPlan: () => ({ path: "/", text: "1" }),
      update: async () => {},
      stats: async () => ({}),
      remove: async () => {},
    },
    names: new NameFiles(),
    identity,
    sharedMemory: { mount: unplayed, resize: async () => {} },
    sharedPids: { namespacePath: unplayed },
    mounts: { take: unplayed, release: async () => {}, share: unplayed, unshare: async () => {} },
    swap: { on: async () => {}, off: async () => {}, setSwappiness: async () => {} },
    // Below a file: no directory is made, and no file's times get into the snapshot.
    containersDir: "/bin/node/containers",
    sysDir: "/sys",
    plugged: { runTool: unplayed, sysDir: "/sys", devDir: "/dev" },
  });
  await new AgentServer(new ScriptedPort(), handlers).run().catch((error: unknown) => {
    if (!(error instanceof BelljarError) || error.reason !== "AGENT_DISCONNECTED") throw error;
  });
  const user = resolveUser("root:root", "root:x:0:0:root:/root:/bin/sh", "root:x:0:root");
  const terminalSize = { columns: 80, rows: 24 };
  completeSpec(withMounts(SPEC, []), {
    process: completeProcess(SPEC.process, user, terminalSize),
    rootfs: "/",
    cgroupsPath: "/",
  });
}
