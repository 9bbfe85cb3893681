/**
 * `checkpoints.ts [--rounds N] [--seed N] [--postgres FILE]`: programs that compute, in three containers of one sandbox, checkpointed at
 * random instants; each checkpoint is restored, or forked every third time, and each copy looked at: what its programs have written
 * until then is what they should have, and they go on from there. With an image of PostgreSQL (see `postgres.ts`) it is one of them.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type ContainerHandle, Runtime, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { runInOwnPlace } from "../support/own-place.ts";
import { seededRandom } from "../support/random.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "100" },
    seed: { type: "string", default: "1" },
    postgres: { type: "string" },
  },
});

const LOOK_TIMEOUT_MS = 120_000;
const WAIT_MAX_MS = 1_500;

interface Program {
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  /** What it has done so far; throws when that is not what it should be. */
  readonly look: (container: ContainerHandle) => Promise<number>;
}

/** A chain of digests: the wrong value anywhere makes every later one wrong. */
const NODE = `
const { createHash } = require("node:crypto"); const { appendFileSync } = require("node:fs");
let n = 0, last = "";
setInterval(() => { n += 1; last = createHash("sha256").update(last + n).digest("hex"); appendFileSync("/chain", n + " " + last + "\\n"); }, 50);
`;
/** Three processes, two pipes: the sums are of all numbers, in their order. */
const PIPELINE = `i=0; while :; do i=$((i+1)); echo $i; usleep 50000; done | awk '{ print; fflush() }' |
while read n; do s=$((s+n)); echo "$n $s" >> /sums; echo $n > /dev/shm/last; done`;
const BIN = "/usr/lib/postgresql/15/bin";
const AS_POSTGRES = "setpriv --reuid postgres --regid postgres --clear-groups";
const DATABASE = `set -e; install -d -o postgres -m 700 /db
${AS_POSTGRES} ${BIN}/initdb -D /db/main --no-instructions > /dev/null
${AS_POSTGRES} ${BIN}/postgres -D /db/main -k /db -c listen_addresses= -c shared_buffers=16MB -c log_min_messages=panic &
until psql -XqAt -h /db -U postgres -c 'CREATE TABLE rows (n int PRIMARY KEY)' 2>/dev/null; do sleep 1; done
n=0; while :; do n=$((n+1)); psql -XqAt -h /db -U postgres -c "INSERT INTO rows VALUES ($n)" && echo $n > /acknowledged; done`;

async function read(container: ContainerHandle, ...command: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await container.exec(command);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
  return stdout.trim();
}

const programs: readonly Program[] = [
  {
    name: "pipeline",
    image: "busybox",
    command: ["sh", "-c", PIPELINE],
    look: async (container) => {
      const lines = (await read(container, "cat", "/sums")).split("\n");
      for (const [index, line] of lines.entries()) {
        const n = index + 1;
        if (line !== `${n} ${(n * (n + 1)) / 2}`) throw new Error(`pipeline: line ${n} is ${line}`);
      }
      return lines.length;
    },
  },
  {
    name: "node",
    image: "node",
    command: ["node", "-e", NODE],
    look: async (container) => {
      const lines = (await read(container, "node", "-p", "require('fs').readFileSync('/chain','utf8')")).split("\n");
      let last = "";
      for (const [index, line] of lines.entries()) {
        last = createHash("sha256")
          .update(last + (index + 1))
          .digest("hex");
        if (line !== `${index + 1} ${last}`) throw new Error(`node: line ${index + 1} is ${line}`);
      }
      return lines.length;
    },
  },
  {
    name: "postgres",
    image: "postgres",
    command: ["sh", "-c", DATABASE],
    look: async (container) => {
      const acknowledged = Number(await read(container, "cat", "/acknowledged"));
      const rows = await read(
        container,
        "psql",
        "-XqAt",
        "-h",
        "/db",
        "-U",
        "postgres",
        "-c",
        "SELECT count(*), max(n) FROM rows",
      );
      const [count, max] = rows.split("|").map(Number);
      if (count !== max || (count ?? 0) < acknowledged)
        throw new Error(`postgres: ${rows}, ${acknowledged} acknowledged`);
      return count ?? 0;
    },
  },
];

const say = (line: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

async function lookAt(sandbox: SandboxHandle, used: readonly Program[]): Promise<number[]> {
  const done: number[] = [];
  for (const { name, look } of used) done.push(await look(await sandbox.containers.get(name)));
  return done;
}

/** Everything is right, and goes on. */
async function check(sandbox: SandboxHandle, used: readonly Program[]): Promise<void> {
  const first = await lookAt(sandbox, used);
  const untilMs = performance.now() + LOOK_TIMEOUT_MS;
  for (;;) {
    const now = await lookAt(sandbox, used);
    if (now.every((count, index) => count > (first[index] ?? 0))) return;
    if (performance.now() > untilMs) throw new Error(`it does not go on: ${first.join(" ")}, then ${now.join(" ")}`);
    await sleep(100);
  }
}

const { dir } = await runInOwnPlace("ck-");
const environment = { ...process.env, BELLJAR_RUN: join(dir, "run") };
const random = seededRandom(Number(values.seed));
let failed = 0;
{
  await using runtime = await Runtime.connect({ paths: resolvePaths({ root: join(dir, "root") }, environment, 0) });
  if (values.postgres !== undefined) await runtime.images.import(values.postgres, { name: "postgres", kind: "rootfs" });
  const used = programs.filter(({ name }) => name !== "postgres" || values.postgres !== undefined);
  await using sandbox = await runtime.sandboxes.create(
    {
      image: "busybox",
      memoryMib: 512,
      sharedMemoryBytes: 16 * 1024 * 1024,
      container: { command: ["sleep", "1000000"] },
    },
    { start: true },
  );
  for (const { name, image, command } of used) {
    await (await sandbox.containers.create({ name, image, command })).start();
  }
  for (const untilMs = performance.now() + LOOK_TIMEOUT_MS; ; await sleep(500)) {
    const isReady = await lookAt(sandbox, used).then(
      () => true,
      () => false,
    );
    if (isReady) break;
    if (performance.now() > untilMs) throw new Error("the programs do not begin");
  }
  for (let round = 1; round <= Number(values.rounds); round += 1) {
    await sleep(random.below(WAIT_MAX_MS));
    const isFork = round % 3 === 0;
    try {
      const taken = isFork ? undefined : await sandbox.checkpoint();
      const [fork] = taken === undefined ? await sandbox.fork(1) : [];
      await using copy = fork ?? (await runtime.checkpoints.restore(taken?.id ?? ""));
      await check(copy, used);
      if (taken !== undefined) await runtime.checkpoints.remove(taken.id);
      say(`ok ${round}: ${isFork ? "forked" : `restored, stopped for ${taken?.pauseMs.toFixed(1)} ms`}`);
    } catch (error) {
      failed += 1;
      say(`FAIL ${round}: ${String(error)}`);
    }
  }
  await check(sandbox, used);
  say(`the source is whole; ${values.rounds} rounds, ${failed} failed`);
  const { pid } = await runtime.daemon();
  process.kill(pid, "SIGTERM");
}
process.exitCode = failed === 0 ? 0 : 1;
