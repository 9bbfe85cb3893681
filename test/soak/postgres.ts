/**
 * `postgres.ts [--kills N] [--seed N] [--image FILE] [--root DIR]`: PostgreSQL of Debian in a container, on a named volume, under a load of
 * single inserts. Kills the VM or the owner with SIGKILL at random instants, and after each kill looks for every row whose commit
 * had been acknowledged. By hand: without KVM a kill of the VM takes half a minute.
 *
 * Without an image, a root file system is made of Debian's packages (`mmdebstrap`).
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type ProcessHandle, Runtime, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { debianImage } from "../support/debian-image.ts";
import { runInOwnPlace } from "../support/own-place.ts";
import { seededRandom } from "../support/random.ts";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    image: { type: "string" },
    root: { type: "string" },
  },
});

const CLIENTS = [0, 1];
const PROGRAMS = "/usr/lib/postgresql/15/bin";
/** A database that recovers in an emulated guest under load. */
const READY_TIMEOUT_MS = 180_000;
/** Longest time that the load runs before a kill. */
const LOAD_MAX_MS = 4_000;
const STATEMENTS = 5_000;

const SERVER = `set -e
chmod 777 /data
run() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -f /data/initialised ]; then
  rm -rf /data/main; install -d -o postgres -m 700 /data/main
  run ${PROGRAMS}/initdb -D /data/main --no-instructions >/dev/null
  sync; touch /data/initialised
fi
exec setpriv --reuid postgres --regid postgres --clear-groups ${PROGRAMS}/postgres -D /data/main -k /data \\
  -c listen_addresses= -c shared_buffers=32MB -c max_connections=10 -c checkpoint_timeout=30s -c log_min_messages=warning`;

const say = (line: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

/** Commits that a client was told of, for each of them the number of its last row. */
const acknowledged = CLIENTS.map(() => 0);

class Load {
  readonly #processes: ProcessHandle[];
  readonly #reading: Promise<void>[];

  private constructor(processes: ProcessHandle[]) {
    this.#processes = processes;
    this.#reading = processes.map((process, client) => read(process, client));
  }

  static async begin(sandbox: SandboxHandle): Promise<Load> {
    const processes: ProcessHandle[] = [];
    for (const client of CLIENTS) {
      const process = await sandbox.spawn(["psql", "-XqAt", "-h", "/data", "-U", "postgres"], { stdin: true });
      processes.push(process);
      // What was sent and not acknowledged may be there or not: a row that is there is taken again.
      const first = (acknowledged[client] ?? 0) + 1;
      const rows = Array.from({ length: STATEMENTS }, (_, index) => first + index);
      const lines = rows.map(
        (n) =>
          `INSERT INTO rows VALUES (${client},${n}) ON CONFLICT (client,n) DO UPDATE SET n=excluded.n RETURNING n;`,
      );
      const writer = process.stdin.getWriter();
      writer.write(Buffer.from(`${lines.join("\n")}\n`)).catch(() => {});
    }
    return new Load(processes);
  }

  /** Of a VM that is gone: what came before its end is read. */
  async end(): Promise<void> {
    await Promise.race([Promise.allSettled(this.#reading), sleep(5_000)]);
  }

  async stop(): Promise<void> {
    for (const process of this.#processes) await process.signal(9).catch(() => {});
    await this.end();
    for (const process of this.#processes) await process.release().catch(() => {});
  }
}

async function read(process: ProcessHandle, client: number): Promise<void> {
  let partial = "";
  try {
    for await (const chunk of process.stdout) {
      const lines = (partial + Buffer.from(chunk).toString("latin1")).split("\n");
      partial = lines.pop() ?? "";
      const last = lines.findLast((line) => /^\d+$/.test(line));
      if (last !== undefined) acknowledged[client] = Math.max(acknowledged[client] ?? 0, Number(last));
    }
  } catch {
    // The VM is gone; so is its output.
  }
}

async function query(sandbox: SandboxHandle, sql: string): Promise<string> {
  const answer = await sandbox.exec(["psql", "-XqAt", "-h", "/data", "-U", "postgres", "-c", sql]);
  if (answer.exitCode !== 0) throw new Error(`psql: ${answer.stderr}`);
  return answer.stdout.trim();
}

/** Waits for the database, and counts the rows that were acknowledged and are not there. */
async function missing(sandbox: SandboxHandle): Promise<number> {
  const promised = [...acknowledged];
  const counts = promised.map((last, client) => `count(*) FILTER (WHERE client=${client} AND n<=${last})`);
  const untilMs = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    try {
      const found = (await query(sandbox, `SELECT ${counts.join(",")} FROM rows`)).split("|").map(Number);
      return promised.reduce((sum, last, client) => sum + last - (found[client] ?? 0), 0);
    } catch (error) {
      if (performance.now() > untilMs) throw error;
      await sleep(250);
    }
  }
}

/** For the first time: with a table. */
async function untilReady(sandbox: SandboxHandle): Promise<void> {
  const untilMs = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    try {
      await query(sandbox, "CREATE TABLE IF NOT EXISTS rows (client int, n int, PRIMARY KEY (client, n))");
      for (const client of CLIENTS) {
        acknowledged[client] = Number(
          await query(sandbox, `SELECT coalesce(max(n),0) FROM rows WHERE client=${client}`),
        );
      }
      return;
    } catch (error) {
      if (performance.now() > untilMs) throw error;
      await sleep(500);
    }
  }
}

const total = (): number => acknowledged.reduce((sum, n) => sum + n, 0);

/** Until the clients work, and then for as long as it is to be. */
async function runLoad(ms: number): Promise<void> {
  const before = total();
  const untilMs = performance.now() + READY_TIMEOUT_MS;
  while (total() === before) {
    if (performance.now() > untilMs) throw new Error("the clients get no answers");
    await sleep(10);
  }
  await sleep(ms);
}

const { dir } = await runInOwnPlace("pg-");
const paths = resolvePaths(
  { root: values.root ?? join(dir, "root"), run: join(dir, "run") },
  process.env,
  process.getuid?.() ?? 0,
);
const random = seededRandom(Number(values.seed));
const kills = { vm: 0, owner: 0 };
let lost = 0;
const recoveriesMs: number[] = [];
{
  await using runtime = await Runtime.connect({ paths });
  const names = (await runtime.images.list()).map(({ name }) => name);
  if (!names.includes("postgres:latest")) {
    await runtime.images.import(values.image ?? (await debianImage("postgres", ["postgresql-15"])), {
      name: "postgres",
      kind: "rootfs",
    });
  }
  say("starting the database");
  const sandbox = await runtime.sandboxes.create({
    image: "postgres",
    memoryMib: 512,
    container: { command: ["sh", "-c", SERVER], mounts: [{ type: "volume", source: "database", target: "/data" }] },
  });
  try {
    await untilReady(sandbox);
    let load = await Load.begin(sandbox);
    let sinceLoad = 0;
    for (let kill = 1; kill <= Number(values.kills); kill += 1) {
      const afterMs = random.below(LOAD_MAX_MS);
      const isVm = random.below(2) === 0;
      const before = total();
      await runLoad(afterMs);
      const startMs = performance.now();
      if (isVm) {
        kills.vm += 1;
        const { vmm } = await sandbox.info();
        if (vmm === undefined) throw new Error("the sandbox has no VM");
        process.kill(vmm.pid, "SIGKILL");
        await load.end();
        while ((await sandbox.info()).state !== "stopped") await sleep(50);
        await sandbox.start();
      } else {
        kills.owner += 1;
        process.kill((await runtime.daemon()).pid, "SIGKILL");
        // The next call starts another one; the load has gone on.
        await sandbox.info();
      }
      const gone = await missing(sandbox);
      const tookMs = Math.round(performance.now() - startMs);
      lost += gone;
      if (isVm) recoveriesMs.push(tookMs);
      const added = total() - before;
      sinceLoad += added;
      say(
        `${kill}: ${isVm ? "VM" : "owner"} after ${afterMs} ms, ${added} commits; back after ${tookMs} ms; ${gone} of ${total()} lost`,
      );
      // A client has its statements at once; it gets new ones with every VM, and when it has few left.
      if (!isVm && sinceLoad < STATEMENTS / 2) continue;
      if (!isVm) await load.stop();
      load = await Load.begin(sandbox);
      sinceLoad = 0;
    }
    await load.stop();
    lost += await missing(sandbox);
  } finally {
    await sandbox.delete({ force: true });
    if (values.root === undefined) await runtime.volumes.remove("database");
    process.kill((await runtime.daemon()).pid, "SIGTERM");
  }
}
const sorted = recoveriesMs.toSorted((a, b) => a - b);
say(`${kills.vm} kills of the VM, ${kills.owner} of the owner; ${acknowledged.join(" and ")} commits; ${lost} lost`);
say(
  `from the kill of the VM until a query is answered: median ${sorted[Math.floor(sorted.length / 2)] ?? 0} ms, n = ${sorted.length}`,
);
process.exitCode = lost === 0 ? 0 : 1;
