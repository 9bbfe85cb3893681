/**
 * `checkpoints.ts [--rounds N] [--minutes N] [--seed N] [--only a,b] [--json FILE] [--root DIR]`: real programs in ten containers of one
 * sandbox (`workloads.ts`), checkpointed at random instants; each checkpoint is restored, or the sandbox is forked twice every third time,
 * and each copy looked at: it has all that the source had done before, nothing of it is wrong, and it goes on. Forks write to disk, to
 * shared memory and into Redis, and must not see one another. Every tenth time the copy's VM is ended too, and PostgreSQL recovers from what
 * is on its disk. With a root that is kept, the next run begins where the programs had begun. By hand, once for a release.
 */
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Runtime, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { debianImage } from "../support/debian-image.ts";
import { runInOwnPlace } from "../support/own-place.ts";
import { seededRandom } from "../support/random.ts";
import { read, type Workload, workloads } from "./workloads.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "100" },
    minutes: { type: "string", default: "600" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    json: { type: "string" },
    root: { type: "string" },
  },
});

/** Debian's PostgreSQL, Redis, Python and C compiler. */
const PROGRAMS = ["postgresql-15", "postgresql-contrib", "redis-server", "python3", "gcc", "libc6-dev", "make"];
const LOOK_TIMEOUT_MS = 180_000;
const WAIT_MAX_MS = 1_500;
const MEMORY_MIB = 1024;

interface Round {
  readonly kind: "restored" | "forked";
  readonly isBooted: boolean;
  readonly pauseMs: number;
  readonly pagesMb: number;
  readonly problem: string | undefined;
}

const { dir } = await runInOwnPlace("ck-");
const random = seededRandom(Number(values.seed));
const used = workloads.filter(({ name }) => values.only === undefined || values.only.split(",").includes(name));
const rounds: Round[] = [];
const say = (line: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

/** At all of them, also when some are wrong: how many says whether it is one program or the guest. */
async function lookAt(sandbox: SandboxHandle, chosen: readonly Workload[] = used): Promise<number[]> {
  const counts: number[] = [];
  const problems: string[] = [];
  const looks = chosen.map(async ({ name, look }) => await look(await sandbox.containers.get(name)));
  for (const [index, looked] of (await Promise.allSettled(looks)).entries()) {
    if (looked.status === "fulfilled") counts.push(looked.value);
    else problems.push(`${chosen[index]?.name}: ${looked.reason}`);
  }
  if (problems.length > 0) throw new Error(`${problems.length} of ${chosen.length}: ${problems.join("; ")}`);
  return counts;
}

/** Everything is right, is not behind what was promised before, and goes on. */
async function check(sandbox: SandboxHandle, before: readonly number[]): Promise<void> {
  const first = await lookAt(sandbox);
  if (first.some((count, index) => count < (before[index] ?? 0)))
    throw new Error(`something is lost: ${before.join(" ")} before, ${first.join(" ")} in the copy`);
  const untilMs = performance.now() + LOOK_TIMEOUT_MS;
  const waiting = new Map(used.map((workload, index) => [workload, first[index] ?? 0]));
  while (waiting.size > 0) {
    const counts = await lookAt(sandbox, [...waiting.keys()]);
    for (const [index, [workload, count]] of [...waiting].entries()) {
      if ((counts[index] ?? 0) > count) waiting.delete(workload);
    }
    if (performance.now() > untilMs) {
      throw new Error(`it does not go on: ${[...waiting].map(([{ name }, count]) => `${name} ${count}`).join(", ")}`);
    }
  }
}

const MARK = "cat /mark /dev/shm/mark 2> /dev/null";

/** What each fork writes is its own. */
async function checkDivergence(source: SandboxHandle, forks: readonly SandboxHandle[]): Promise<void> {
  const hasRedis = used.some(({ name }) => name === "redis");
  const redis = async (sandbox: SandboxHandle, command: string): Promise<string> =>
    hasRedis ? await read(await sandbox.containers.get("redis"), "sh", "-c", `redis-cli ${command}`) : "";
  for (const [index, fork] of forks.entries()) {
    await read(fork.main, "sh", "-c", `echo ${index} > /mark; echo ${index} > /dev/shm/mark`);
    await redis(fork, `set mark ${index}`);
  }
  for (const [index, fork] of [...forks, source].entries()) {
    const mark = index < forks.length ? String(index) : "";
    const seen = (await fork.exec(["sh", "-c", MARK])).stdout.split("\n").filter((line) => line !== "");
    const wanted = mark === "" ? [] : [mark, mark];
    if (seen.join() !== wanted.join()) throw new Error(`${index}: sees ${seen.join()}, not ${wanted.join()}`);
    const got = await redis(fork, "get mark");
    if (hasRedis && got !== mark) throw new Error(`${index}: Redis has ${got}, not ${mark}`);
  }
}

/** The VM ends as if its power had gone, and boots again with its disk. */
async function checkBooted(copy: SandboxHandle, before: readonly number[]): Promise<void> {
  await copy.stop({ timeoutMs: 0 });
  await copy.start();
  const untilMs = performance.now() + LOOK_TIMEOUT_MS;
  for (const [index, workload] of used.entries()) {
    if (workload.outlivesVm !== true) continue;
    const container = await copy.containers.get(workload.name);
    // Containers but the first are started by whoever wants them.
    if ((await container.info()).state !== "running") await container.start();
    for (;;) {
      const [count, problem] = await workload.look(container).then(
        (found) => [found, undefined] as const,
        (error: unknown) => [0, String(error)] as const,
      );
      if (problem === undefined && count >= (before[index] ?? 0)) break;
      if (performance.now() > untilMs) throw new Error(`after a boot: ${count} of ${before[index]}; ${problem}`);
      await sleep(500);
    }
  }
}

async function round(runtime: Runtime, source: SandboxHandle, number: number): Promise<Round> {
  const kind = number % 3 === 0 ? "forked" : "restored";
  const isBooted = number % 10 === 0;
  let pauseMs = 0;
  let pagesMb = 0;
  const copies: SandboxHandle[] = [];
  try {
    const before = await lookAt(source);
    await sleep(random.below(WAIT_MAX_MS));
    if (kind === "forked") copies.push(...(await source.fork(2)));
    else {
      const taken = await source.checkpoint();
      pauseMs = taken.pauseMs;
      pagesMb = taken.pagesBytes / 1e6;
      copies.push(await runtime.checkpoints.restore(taken.id));
      await runtime.checkpoints.remove(taken.id);
    }
    // For the time that the copies need the machine; it has run beside them until now.
    await source.pause();
    if (kind === "forked") {
      // A fork at a time: together they would take the host's memory bandwidth from one another, and prove nothing more.
      for (const copy of copies) await check(copy, before);
      await source.resume();
      await checkDivergence(source, copies);
    } else for (const copy of copies) await check(copy, before);
    if (isBooted && copies[0] !== undefined) await checkBooted(copies[0], before);
    return { kind, isBooted, pauseMs, pagesMb, problem: undefined };
  } catch (error) {
    return { kind, isBooted, pauseMs, pagesMb, problem: String(error) };
  } finally {
    for (const copy of copies) await copy.delete({ force: true }).catch((error: unknown) => say(String(error)));
    if ((await source.info()).state === "paused") await source.resume();
  }
}

/** A sandbox in which all of them run. */
async function begin(runtime: Runtime): Promise<SandboxHandle> {
  const source = await runtime.sandboxes.create({
    image: "busybox",
    memoryMib: MEMORY_MIB,
    cpus: 2,
    sharedMemoryBytes: 16 * 1024 * 1024,
    container: { command: ["sleep", "1000000"] },
  });
  // One after the other: what they do at first is more than what they do all the time.
  for (const workload of used) {
    const { name, image, command } = workload;
    const container = await source.containers.create({ name, image, command });
    await container.start();
    for (const untilMs = performance.now() + LOOK_TIMEOUT_MS; ; await sleep(1_000)) {
      const problem = await workload.look(container).then(
        () => undefined,
        (error: unknown) => String(error),
      );
      if (problem === undefined) break;
      const hasEnded = (await container.info()).state === "stopped";
      if (hasEnded || performance.now() > untilMs) throw new Error(`${name} does not begin: ${problem}`);
    }
    say(`${name} runs`);
  }
  return source;
}

const paths = resolvePaths(
  { root: values.root ?? join(dir, "root") },
  { ...process.env, BELLJAR_RUN: join(dir, "run") },
  0,
);
{
  await using runtime = await Runtime.connect({ paths });
  const images = (await runtime.images.list()).map(({ name }) => name);
  if (!images.includes("programs:latest")) {
    await runtime.images.import(await debianImage("programs", PROGRAMS), { name: "programs", kind: "rootfs" });
  }
  const chosen = used.map(({ name }) => name).join(" ");
  const kept = `begun-${createHash("sha256").update(chosen).digest("hex").slice(0, 12)}`;
  const isKept = (await runtime.checkpoints.list()).some(({ name }) => name === kept);
  await using source = isKept ? await runtime.checkpoints.restore(kept) : await begin(runtime);
  if (!isKept) await source.checkpoint({ name: kept });
  const untilMs = performance.now() + Number(values.minutes) * 60_000;
  while (rounds.length < Number(values.rounds) && performance.now() < untilMs) {
    const number = rounds.length + 1;
    const startMs = performance.now();
    const done = await round(runtime, source, number);
    rounds.push(done);
    const tookS = ((performance.now() - startMs) / 1000).toFixed(1);
    const what = `${done.kind}${done.isBooted ? " and booted" : ""}`;
    say(
      `${done.problem === undefined ? "ok  " : "FAIL"} ${number}: ${what}, ${tookS} s${done.pauseMs > 0 ? `, stopped for ${done.pauseMs.toFixed(1)} ms, ${done.pagesMb.toFixed(0)} MB` : ""} ${done.problem ?? ""}`,
    );
    if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(rounds)}\n`);
  }
  await check(source, await lookAt(source));
  process.kill((await runtime.daemon()).pid, "SIGTERM");
}
const failed = rounds.filter(({ problem }) => problem !== undefined).length;
const forked = rounds.filter(({ kind }) => kind === "forked").length;
say(
  `the source is whole; ${rounds.length - forked} restored, ${forked} forked twice, ${rounds.filter(({ isBooted }) => isBooted).length} of them booted; ${failed} failed`,
);
process.exitCode = failed === 0 ? 0 : 1;
