/**
 * Many clients at many sandboxes, and a daemon that is killed all the while: no operation is lost without an error to its caller, none is
 * done twice, no sandbox is disturbed, nothing is left.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type ConnectedRuntime, type Paths, Runtime, type SandboxHandle } from "../../src/sdk/index.ts";
import { seededRandom } from "../support/random.ts";
import { checkCounting, JOURNAL, runClient } from "./client.ts";
import { KilledDaemon } from "./daemon.ts";
import { Ledger } from "./ledger.ts";

export interface LoadOptions {
  readonly paths: Paths;
  readonly logPath: string;
  readonly sandboxes: number;
  readonly clients: number;
  readonly durationMs: number;
  readonly killEveryMs: number;
  readonly seed: number;
  readonly say: (line: string) => void;
}

export interface LoadReport {
  readonly violations: readonly string[];
  readonly kills: number;
  readonly succeeded: ReadonlyMap<string, number>;
  readonly failed: ReadonlyMap<string, number>;
  readonly examples: ReadonlyMap<string, string>;
  /** Of the daemon's event loop, one 99th percentile for each of its lives. */
  readonly delaysMs: readonly number[];
}

/** Waits without a process for it: a hundred that start one each second are all that two emulating CPUs get done. */
const COUNTER = [
  "sh",
  "-c",
  "mkfifo /wait; exec 3<>/wait; i=0; while :; do echo $i; i=$((i+1)); read -t 5 line <&3; done",
];
/** More at once than there are CPUs only wait for one another. */
const FORKS_AT_ONCE = 2;
const FORK_TRIES = 3;
const HEAVY_AT_ONCE = 2;

export async function runLoad(options: LoadOptions): Promise<LoadReport> {
  const { paths, say } = options;
  const daemon = new KilledDaemon(paths, options.logPath);
  const ledger = new Ledger();
  const mayExist = new Set<string>();
  await daemon.start();
  const connect = (): Promise<ConnectedRuntime> => Runtime.connect({ paths, startDaemon: false });
  const clients: ConnectedRuntime[] = [];
  try {
    const main = await patiently(connect);
    clients.push(main);
    const sandboxes = await makeSandboxes(main, options);
    await warmUp(main, sandboxes, daemon, say);
    const before = new Map(await Promise.all(sandboxes.map(async (each) => [each.id, await each.info()] as const)));
    say(`${sandboxes.length} sandboxes`);

    const ending = new AbortController();
    const heavy = { free: HEAVY_AT_ONCE };
    const work: Promise<void>[] = [];
    for (let number = 0; number < options.clients; number += 1) {
      const runtime = await patiently(connect);
      clients.push(runtime);
      const handles = await Promise.all(sandboxes.map(({ id }) => patiently(() => runtime.sandboxes.get(id))));
      const random = seededRandom(options.seed + number);
      work.push(runClient({ runtime, sandboxes: handles, ledger, random, heavy, mayExist, signal: ending.signal }));
    }
    const endMs = performance.now() + options.durationMs;
    while (performance.now() < endMs) {
      await sleep(Math.min(options.killEveryMs, Math.max(0, endMs - performance.now())));
      if (performance.now() < endMs) await daemon.killAndStart();
      const total = [...ledger.succeeded.values()].reduce((sum, count) => sum + count, 0);
      say(`${daemon.kills} kills, ${total} operations, ${ledger.violations.length} violations`);
    }
    ending.abort();
    await Promise.all(work);
    await checkAll(main, sandboxes, before, ledger, mayExist);
    const { kills } = daemon;
    for (const { id } of sandboxes)
      await patiently(async () => await (await main.sandboxes.get(id)).delete({ force: true }));
    return {
      violations: ledger.violations,
      kills,
      succeeded: ledger.succeeded,
      failed: ledger.failed,
      examples: ledger.examples,
      delaysMs: daemon.delaysMs,
    };
  } finally {
    await Promise.allSettled(clients.map((client) => client[Symbol.asyncDispose]()));
    await daemon.kill("SIGTERM");
  }
}

async function makeSandboxes(runtime: ConnectedRuntime, options: LoadOptions): Promise<SandboxHandle[]> {
  const config = { image: "busybox", name: "load", memoryMib: 128, container: { command: COUNTER } };
  const first = await runtime.sandboxes.create(config);
  await first.exec(["touch", JOURNAL]);
  const all: SandboxHandle[] = [first];
  while (all.length < options.sandboxes) {
    const count = Math.min(FORKS_AT_ONCE, options.sandboxes - all.length);
    const name = `load-${all.length}-{n}`;
    all.push(...(await several(() => first.fork({ count, name }))));
    options.say(`${all.length} sandboxes`);
  }
  return all;
}

/**
 * Each guest does once what it will be asked for, and is found once by a daemon that it does not know. Under emulation all of that takes
 * seconds of CPU time the first time, since its code is translated: a hundred guests that begin with it together would get nothing else
 * done for minutes.
 */
async function warmUp(
  main: ConnectedRuntime,
  sandboxes: readonly SandboxHandle[],
  daemon: KilledDaemon,
  say: (line: string) => void,
): Promise<void> {
  const waiting = sandboxes.values();
  const use = async (): Promise<void> => {
    for (const sandbox of waiting) {
      await patiently(async () => {
        await sandbox.exec(["true"]);
        await sandbox.files.write("/warm", "warm");
        await sandbox.files.read("/warm");
        await sandbox.files.remove("/warm");
      });
    }
  };
  await Promise.all(Array.from({ length: FORKS_AT_ONCE }, use));
  say("each was used once");
  await daemon.killAndStart();
  await patiently(async () => {
    const late = (await main.sandboxes.list()).filter(({ problem }) => problem !== undefined);
    if (late.length > 0) throw new Error(`${late.length} sandboxes are waited for`);
  });
  say("each was found by the next daemon");
}

/** A host that is busy with other things may be too slow once. */
async function several<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (tries >= FORK_TRIES) throw error;
    }
  }
}

type Infos = ReadonlyMap<string, Awaited<ReturnType<SandboxHandle["info"]>>>;

async function checkAll(
  runtime: ConnectedRuntime,
  sandboxes: readonly SandboxHandle[],
  before: Infos,
  ledger: Ledger,
  mayExist: Set<string>,
): Promise<void> {
  for (const { id, name } of sandboxes) {
    const sandbox = await patiently(() => runtime.sandboxes.get(id));
    // The last daemon may still be waiting for the agent.
    const info = await patiently(async () => {
      const found = await sandbox.info();
      if (found.problem !== undefined) throw new Error(found.problem);
      return found;
    });
    const was = before.get(id);
    const isSame = info.state === "running" && info.vmm?.pid === was?.vmm?.pid && info.generation === was?.generation;
    const isCounting = info.containers[0]?.state === "running" && info.containers[0].pid === was?.containers[0]?.pid;
    if (!isSame || !isCounting || info.problem !== undefined)
      ledger.violate(
        `${name} was disturbed: ${info.state}, ${info.problem}, VM ${info.vmm?.pid}, was ${was?.vmm?.pid}`,
      );
    const journal = Buffer.from(await patiently(() => sandbox.files.read(JOURNAL))).toString();
    ledger.checkJournal(id, journal.split("\n").slice(0, -1));
    let text = "";
    for await (const { data } of sandbox.main.logs()) text += Buffer.from(data).toString();
    checkCounting(text, name, ledger);
  }
  const known = new Set(sandboxes.map(({ id }) => id));
  for (const { id, name } of await patiently(() => runtime.sandboxes.list())) {
    if (known.has(id)) continue;
    if (!mayExist.has(name)) ledger.violate(`there is a sandbox ${name} that nobody has`);
    await patiently(async () => await (await runtime.sandboxes.get(id)).delete({ force: true }));
  }
  for (const { id, name } of await patiently(() => runtime.checkpoints.list())) {
    if (!mayExist.has(name)) ledger.violate(`there is a checkpoint ${name} that nobody has`);
    await patiently(() => runtime.checkpoints.remove(id));
  }
}

/** The daemon may just be starting. */
async function patiently<T>(work: () => Promise<T>): Promise<T> {
  for (const endMs = performance.now() + 120_000; ; await sleep(200)) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
  }
}
