import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { MemoryHypervisor } from "../../test/support/memory-hypervisor.ts";
import type { AgentLink } from "../agent-client/index.ts";
import { BelljarError, type ErrorReason, identifyProcess, newId, silentLog, systemClock } from "../base/index.ts";
import type { GuestImage } from "../guest/index.ts";
import { settleSandboxConfig } from "./config.ts";
import { pruneSandboxes } from "./prune.ts";
import { SandboxRecord } from "./record.ts";
import { Sandbox, type SandboxDeps } from "./sandbox.ts";

interface World {
  readonly hypervisor: MemoryHypervisor;
  readonly deps: SandboxDeps;
  /** Methods that were called on the agent. */
  readonly agentCalls: string[];
  create(signal?: AbortSignal): Promise<Sandbox>;
  assertNothingLeft(): Promise<void>;
}

async function makeWorld(t: TestScope, agent: { readonly answers?: boolean } = {}): Promise<World> {
  const dir = await tempDir(t);
  const hypervisor = new MemoryHypervisor();
  const agentCalls: string[] = [];
  const guestImage: GuestImage = {
    digest: "0".repeat(64),
    dir,
    kernelPath: join(dir, "kernel"),
    initrdPath: join(dir, "initrd"),
    rootPath: join(dir, "root"),
    kernelArguments: [],
    get manifest(): never {
      throw new Error("nobody reads the manifest");
    },
  };
  const deps: SandboxDeps = {
    hypervisor,
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImage,
    connectAgent: async ({ signal }) => {
      if (agent.answers === false) {
        await new Promise((_, reject) => signal?.addEventListener("abort", () => reject(new Error("stopped"))));
      }
      const link: AgentLink = {
        hello: { agentVersion: "1", kernelRelease: "6", uptimeMs: 1, agentInstance: "a" },
        closed: new Promise(() => {}),
        call: async (method) => {
          agentCalls.push(method);
          throw new BelljarError("AGENT_FAILED", `${method} is not played here`);
        },
        close: async () => {},
      };
      return link;
    },
    sandboxesDir: join(dir, "sandboxes"),
    runDir: join(dir, "run"),
    clock: systemClock,
    log: silentLog,
  };
  return {
    hypervisor,
    deps,
    agentCalls,
    create: (signal) => {
      const id = newId();
      return Sandbox.create(deps, id, "busybox", settleSandboxConfig({}, id), signal);
    },
    assertNothingLeft: async () => {
      assert.deepEqual(await readdir(deps.sandboxesDir), []);
      assert.deepEqual(await readdir(deps.runDir).catch(() => []), []);
      assert.deepEqual(hypervisor.live, []);
    },
  };
}

const reason = (expected: ErrorReason) => (error: unknown) =>
  error instanceof BelljarError && error.reason === expected;

test("sandbox: a record names its owner before the VM starts, and goes last", async (t) => {
  const world = await makeWorld(t);
  let recorded = "";
  world.hypervisor.onStart = async (vm) => {
    recorded = await readFile(join(world.deps.sandboxesDir, vm.config.id, "sandbox.json"), "utf8");
  };
  const sandbox = await world.create();
  assert.match(recorded, new RegExp(`"pid": ${process.pid}`));
  const state = await SandboxRecord.open(join(world.deps.sandboxesDir, sandbox.id));
  assert.equal(state.state.vm?.id, sandbox.id);
  await sandbox.delete();
  await sandbox.delete();
  await world.assertNothingLeft();
});

test("sandbox: a VM that does not start leaves nothing, and its error is the one told", async (t) => {
  const world = await makeWorld(t);
  world.hypervisor.fail("start", new BelljarError("VMM_START_FAILED", "no"));
  await assert.rejects(world.create(), reason("VMM_START_FAILED"));
  await world.assertNothingLeft();
});

test("sandbox: a start that is cancelled leaves nothing", async (t) => {
  const world = await makeWorld(t);
  world.hypervisor.hold("start");
  const controller = new AbortController();
  const creating = world.create(controller.signal);
  while (world.hypervisor.calls.length === 0) await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  await assert.rejects(creating, reason("CANCELLED"));
  await world.assertNothingLeft();
});

test("sandbox: whoever waits for the agent is told how the VM ended", async (t) => {
  for (const [end, expected] of [
    [{ cause: "guest", panic: true, detail: "Kernel panic" }, "GUEST_PANIC"],
    [{ cause: "guest", panic: false, detail: "powered off" }, "VMM_DIED"],
    [{ cause: "died", detail: "SIGKILL" }, "VMM_DIED"],
  ] as const) {
    const world = await makeWorld(t, { answers: false });
    await using sandbox = await world.create();
    const waiting = assert.rejects(sandbox.agent(), reason(expected));
    world.hypervisor.vms.get(sandbox.id)?.end(end);
    await waiting;
  }
});

test("sandbox: an agent that refuses its introduction can be asked again", async (t) => {
  const world = await makeWorld(t);
  await using sandbox = await world.create();
  await assert.rejects(sandbox.agent(), reason("AGENT_FAILED"));
  await assert.rejects(sandbox.agent(), reason("AGENT_FAILED"));
  assert.deepEqual(world.agentCalls, ["configureSandbox", "configureSandbox"]);
});

test("sandbox: a disk is plugged once for all its users and unplugged after the last", async (t) => {
  const world = await makeWorld(t);
  await using sandbox = await world.create();
  const disk = { serial: "l-1", path: "/x", format: "raw", readOnly: true } as const;
  await sandbox.plugDisk(disk);
  await sandbox.plugDisk(disk);
  await sandbox.unplugDisk("l-1");
  const plugged = world.hypervisor.vms.get(sandbox.id)?.disks.map((each) => each.serial);
  assert.deepEqual(plugged, ["root", "l-1"]);
  await sandbox.unplugDisk("l-1");
  assert.deepEqual(
    world.hypervisor.calls.filter((call) => call.includes("l-1")),
    [`plugDisk ${sandbox.id} l-1`, `unplugDisk ${sandbox.id} l-1`],
  );
});

test("prune: what a live process owns stays, what a dead one owned goes", async (t) => {
  const world = await makeWorld(t);
  await using sandbox = await world.create();
  const { sandboxesDir, runDir } = world.deps;
  const self = await identifyProcess(process.pid);
  assert.notEqual(self, undefined);

  const deadId = newId();
  await mkdir(join(runDir, deadId));
  const record = await SandboxRecord.create(sandboxesDir, {
    id: deadId,
    name: deadId,
    createdAtMs: 1,
    image: "busybox",
    runDir: join(runDir, deadId),
  });
  await record.update({ owner: { pid: 1, startTicks: 1, bootId: "another boot" } });
  await mkdir(join(sandboxesDir, `.new-${newId()}-1-1-00000000-0000-0000-0000-000000000000`));
  const orphanSockets = newId();
  await mkdir(join(runDir, orphanSockets));

  const removed = await pruneSandboxes({ sandboxesDir, runDir, log: silentLog });
  assert.deepEqual(removed.map((each) => each.kind).sort(), ["sandbox", "sockets", "unfinished"]);
  assert.deepEqual(await readdir(sandboxesDir), [sandbox.id]);
  assert.deepEqual(await readdir(runDir), [sandbox.id]);
});

test("prune: a state that cannot be read is told, and left as it is", async (t) => {
  const world = await makeWorld(t);
  const { sandboxesDir, runDir } = world.deps;
  const id = newId();
  await mkdir(join(sandboxesDir, id), { recursive: true });
  await writeFile(join(sandboxesDir, id, "sandbox.json"), "garbage");
  await mkdir(join(runDir, id), { recursive: true });
  const removed = await pruneSandboxes({ sandboxesDir, runDir, log: silentLog });
  assert.deepEqual(
    removed.map((each) => each.kind),
    ["unreadable"],
  );
  assert.equal(await readFile(join(sandboxesDir, id, "sandbox.json"), "utf8"), "garbage");
  assert.deepEqual(await readdir(runDir), [id]);
});
