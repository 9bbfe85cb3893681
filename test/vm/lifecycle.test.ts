/** Sandboxes and containers in real VMs, through every move that is allowed, and through random ones. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { connectAgent } from "../../src/agent-client/index.ts";
import { allowedMoves, BelljarError, type LifecycleState, silentLog, systemClock } from "../../src/base/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { createQemu } from "../../src/hypervisor/index.ts";
import { openImageStore } from "../../src/images/index.ts";
import {
  type ContainerHandle,
  openRuntime,
  type RuntimeCore,
  type RuntimeDeps,
  type SandboxHandle,
} from "../../src/runtime/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { seededRandom } from "../support/random.ts";
import { sharedTemplates } from "../support/templates.ts";

async function open(t: TestScope): Promise<RuntimeCore> {
  const dir = await tempDir(t);
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  const deps: RuntimeDeps = {
    hypervisor: createQemu({ log: silentLog }),
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImages: openGuestImages({ dir: guest, log: silentLog }),
    images: await openImageStore({ dir: join(dir, "images"), guestDir: guest, log: silentLog }),
    connectAgent,
    templates: sharedTemplates(join(dir, "root"), join(dir, "run")),
    rootDir: join(dir, "root"),
    runDir: join(dir, "run"),
    clock: systemClock,
    log: silentLog,
  };
  const runtime = await openRuntime(deps);
  t.after(async () => {
    for (const { id } of await runtime.sandboxes.list())
      await (await runtime.sandboxes.get(id)).delete({ force: true });
    await runtime.release();
  });
  return runtime;
}

const forever = ["sh", "-c", "echo up; exec sleep 1000"];

/** Which moves of the state machine were seen, `running -> paused` and so on. */
class Moves {
  readonly #seen = new Set<string>();
  #state: LifecycleState | undefined;

  note(state: LifecycleState): void {
    if (this.#state !== undefined && this.#state !== state) this.#seen.add(`${this.#state} -> ${state}`);
    this.#state = state;
  }

  /** Another one of the same kind. */
  begin(): void {
    this.#state = undefined;
  }

  assertAll(): void {
    for (const from of ["ready", "running", "paused", "stopped"] as const) {
      for (const to of allowedMoves(from))
        assert.ok(this.#seen.has(`${from} -> ${to}`), `${from} -> ${to} was not seen`);
    }
  }
}

test(
  "three containers share network, /dev/shm and pids, through every transition",
  async (t) => {
    const runtime = await open(t);
    const moves = { sandbox: new Moves(), container: new Moves() };
    const sandbox = await runtime.sandboxes.create(
      {
        image: "busybox",
        hostname: "trio",
        dns: { servers: ["192.0.2.1"], search: ["example.com"], options: ["ndots:2"] },
        sharePids: true,
        sharedMemoryBytes: 32 * 1024 * 1024,
        container: { command: forever },
      },
      { start: false },
    );
    const { main } = sandbox;
    const note = async (container: ContainerHandle = main): Promise<void> => {
      moves.sandbox.note(await lifeOf(sandbox));
      moves.container.note((await container.info()).state);
    };
    await note();
    await assert.rejects(sandbox.pause(), { reason: "INVALID_TRANSITION" });
    const second = await sandbox.containers.create({ image: "busybox", name: "second", command: forever });
    const third = await sandbox.containers.create({ image: "busybox", name: "third", keepAlive: true });
    await sandbox.start();
    await note();

    await main.exec(["sh", "-c", "echo shared > /dev/shm/word"]);
    assert.equal((await third.exec(["cat", "/dev/shm/word"])).stdout, "shared\n");
    const size = (await second.exec(["df", "-k", "/dev/shm"])).stdout;
    assert.match(size, /\b32768\b/);
    const seen = (await third.exec(["ps", "-o", "args"])).stdout;
    assert.ok(seen.split("\n").filter((line) => line.includes("sleep 1000")).length >= 2, seen);
    const server = await main.spawn([
      "sh",
      "-c",
      "mkdir /srv; echo over loopback > /srv/f; exec httpd -f -p 4444 -h /srv",
    ]);
    const get = "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://127.0.0.1:4444/f && break; sleep 0.2; done";
    assert.equal((await second.exec(["sh", "-c", get])).stdout, "over loopback\n");
    await server.signal(9);
    await server.status;
    assert.equal((await third.exec(["hostname"])).stdout, "trio\n");
    for (const container of [main, third]) {
      const { stdout } = await container.exec(["cat", "/etc/resolv.conf"]);
      assert.equal(stdout, "nameserver 192.0.2.1\nsearch example.com\noptions ndots:2\n");
    }

    // A further process is somebody else, somewhere else, at a terminal of its own.
    const own = ["sh", "-c", 'id -u; id -g; pwd; tty; stty size; test "$A" = b'];
    const asked = {
      user: "1000:1001",
      cwd: "/tmp",
      env: ["A=b"],
      tty: true,
      terminalSize: { rows: 33, columns: 77 },
    };
    const { stdout, exitCode } = await main.exec(own, asked);
    assert.match(stdout, /^1000\r\n1001\r\n\/tmp\r\n\/dev\/pts\/\d+\r\n33 77\r\n$/);
    assert.equal(exitCode, 0);
    assert.equal((await main.exec(["sh", "-c", "id -u; tty || pwd"])).stdout, "0\nnot a tty\n/\n");

    // A container by itself.
    await second.pause();
    assert.equal((await second.info()).state, "paused");
    await assert.rejects(second.exec(["true"]), { reason: "INVALID_TRANSITION" });

    // The sandbox as a whole: what was frozen by itself stays so.
    await sandbox.pause();
    await note();
    const cpuBefore = await vmCpuTicks(sandbox);
    await systemClock.sleep(500);
    assert.equal(await vmCpuTicks(sandbox), cpuBefore, "a paused VM uses CPU");
    await assert.rejects(main.stop(), { reason: "INVALID_TRANSITION" });
    await sandbox.resume();
    await note();
    assert.equal((await second.info()).state, "paused");
    await second.resume();
    const drift = Date.now() - Number((await main.exec(["date", "+%s"])).stdout) * 1000;
    assert.ok(Math.abs(drift) < 3_000, `the guest's clock is ${drift} ms off`);

    await second.update({ memoryBytes: 64 * 1024 * 1024, pids: 50 });
    const stats = await second.stats();
    assert.equal(stats.memory.limitBytes, 64n * 1024n * 1024n);
    assert.equal(stats.pids.limit, 50n);
    assert.equal(stats.network[0]?.name, "lo");
    assert.deepEqual(Object.keys((await sandbox.stats()).containers).length, 3);

    // Stopped, and started again with its disk as it was.
    await main.exec(["sh", "-c", "echo kept > /kept"]);
    await main.stop({ timeoutMs: 2_000 });
    await note();
    assert.equal((await main.wait()).signal, 15);
    await main.start();
    await note();
    assert.equal((await main.exec(["cat", "/kept"])).stdout, "kept\n");
    await main.pause();
    await note();
    await main.resume();
    await note();
    await main.pause();
    await note();
    await main.stop({ timeoutMs: 0 });
    await note();

    const late = await sandbox.containers.create({ image: "busybox", command: forever });
    moves.container.begin();
    await note(late);
    await late.stop();
    await note(late);
    await late.delete();

    // The whole stopped while it was paused, and booted again.
    await sandbox.pause();
    await note();
    await sandbox.stop({ timeoutMs: 1_000 });
    await note();
    await sandbox.start();
    await note();
    assert.equal((await main.exec(["cat", "/kept"])).stdout, "kept\n");
    assert.equal((await third.exec(["hostname"])).stdout, "trio\n");
    await sandbox.stop({ timeoutMs: 0 });
    await note();
    await sandbox.delete();

    moves.sandbox.begin();
    const other = await runtime.sandboxes.create(
      { image: "busybox", container: { command: forever } },
      { start: false },
    );
    moves.sandbox.note(await lifeOf(other));
    await other.stop();
    moves.sandbox.note(await lifeOf(other));
    await other.delete();
    moves.sandbox.assertAll();
    moves.container.assertAll();
    assert.deepEqual(await runtime.sandboxes.list(), []);
  },
  { timeoutMs: 240_000 },
);

async function vmCpuTicks(sandbox: SandboxHandle): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  const { vmm } = await sandbox.info();
  const fields = (await readFile(`/proc/${vmm?.pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
  // The guest's CPUs do not run; the VMM itself may wake up once in a while.
  return String(Math.trunc((Number(fields[11]) + Number(fields[12])) / 10));
}

test(
  "200 random operations in VMs follow the state machine",
  async (t) => {
    const seed = Number(process.env["BELLJAR_WALK_SEED"] ?? Math.trunc(Math.random() * 2 ** 32));
    t.diagnostic(`seed ${seed} (BELLJAR_WALK_SEED)`);
    const random = seededRandom(seed);
    const runtime = await open(t);
    const sandbox = await runtime.sandboxes.create({ image: "busybox", container: { command: forever } });
    await sandbox.containers.create({ image: "busybox", command: forever });
    let boots = 1;
    for (let step = 0; step < 200; step += 1) {
      const before = await lifeOf(sandbox);
      const all = await sandbox.containers.list();
      const picked = all[random.below(all.length)];
      const container = picked === undefined ? undefined : await sandbox.containers.get(picked.id);
      // Boots take seconds: a few are enough.
      const canStop = boots < 4 || before === "stopped";
      const operations: readonly [string, (() => Promise<unknown>) | undefined][] = [
        ["pause", () => sandbox.pause()],
        ["resume", () => sandbox.resume()],
        ["start", () => sandbox.start()],
        ["stop", canStop && random.below(6) === 0 ? () => sandbox.stop({ timeoutMs: 0 }) : undefined],
        [
          "create",
          all.length < 3 ? () => sandbox.containers.create({ image: "busybox", command: forever }) : undefined,
        ],
        ["container start", container && (() => container.start())],
        ["container stop", container && (() => container.stop({ timeoutMs: random.below(2) * 500 }))],
        ["container pause", container && (() => container.pause())],
        ["container resume", container && (() => container.resume())],
        ["container kill", container && (() => container.kill())],
        ["container exec", container && (() => container.exec(["true"]))],
        ["container delete", container && all.length > 1 ? () => container.delete() : undefined],
      ];
      const [what, act] = operations[random.below(operations.length)] ?? ["", undefined];
      if (act === undefined) continue;
      if (what === "start" && before === "stopped") boots += 1;
      const error = await act().then(
        () => undefined,
        (thrown: unknown) => BelljarError.from(thrown),
      );
      const where = `seed ${seed}, step ${step}: ${what} of a ${before} sandbox, ${picked?.state} container`;
      if (error !== undefined) assert.equal(error.reason, "INVALID_TRANSITION", `${where}: ${error.stack}`);
      const after = await lifeOf(sandbox);
      assert.ok(after === before || allowedMoves(before).includes(after), `${where}: it is ${after} now`);
      if (what === "pause") assert.equal(error === undefined, before === "running", where);
      if (what === "resume") assert.equal(error === undefined, before === "paused", where);
      const ran = picked?.state === "running" || picked?.state === "paused";
      if (what === "container kill" && error === undefined && ran) await container?.wait();
    }
    t.diagnostic(`${boots} boots`);
    const { state } = await sandbox.info();
    if (state === "paused") await sandbox.resume();
    if (state === "stopped") await sandbox.start();
    const last = await sandbox.containers.create({ image: "busybox", command: forever });
    await last.start();
    assert.equal((await last.exec(["echo", "still here"])).stdout, "still here\n");
  },
  { timeoutMs: 300_000 },
);

/** None of them hibernates. */
async function lifeOf(sandbox: SandboxHandle): Promise<LifecycleState> {
  const { state } = await sandbox.info();
  assert.notEqual(state, "hibernated");
  return state === "hibernated" ? "paused" : state;
}
