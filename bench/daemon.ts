/**
 * The daemon's figures: a call's way there and back, long streams, files, a list of very many sandboxes, its memory, and how soon a sandbox
 * that sleeps answers whoever connects to it.
 */
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { newId, parseJson } from "../src/base/index.ts";
import { type ConnectedRuntime, Runtime, type SandboxHandle } from "../src/sdk/index.ts";
import { decodeEnvelope, encodeEnvelope } from "../src/store/index.ts";
import { until } from "../test/support/until.ts";
import { type Measurement, repeat, time } from "./measure.ts";
import { endDaemon, ownPaths } from "./own-daemon.ts";
import { createSleeper, megabytesPerSecond, outputMbPerSecond } from "./sleeper.ts";

const CALLS = 200;
const STREAM_BYTES = 1_000_000_000;
const STREAMS = 2;
const FILE_BYTES = 32_000_000;
const FILES = 5;
const RECORDED = 10_000;
const LISTS = 10;
const SANDBOXES = [0, 10, 100] as const;
const MEMORY_SAMPLES = 5;
const WAKES = 20;
const SERVER = 'require("http").createServer((q, r) => r.end("here\\n")).listen(80)';
const ANSWER_TIMEOUT_MS = 60_000;

/** What a call costs that does nothing, and what further ones cost beside the data that they carry. */
export async function measureApi(runtime: ConnectedRuntime): Promise<Measurement[]> {
  await using sandbox = await createSleeper(runtime);
  const roundTrips = await repeat(CALLS, () => time(async () => void (await runtime.daemon())));
  const infos = await repeat(CALLS, () => time(async () => void (await sandbox.info())));
  const data = Buffer.alloc(FILE_BYTES, "belljar\n");
  const [up, down]: [number[], number[]] = [[], []];
  for (let turn = 0; turn < FILES; turn += 1) {
    up.push(megabytesPerSecond(FILE_BYTES, await time(() => sandbox.files.write("/data", data))));
    const back = await time(async () => {
      let received = 0;
      for await (const piece of sandbox.files.readStream("/data")) received += piece.length;
      if (received !== FILE_BYTES) throw new Error(`${received} bytes came back of ${FILE_BYTES}`);
    });
    down.push(megabytesPerSecond(FILE_BYTES, back));
  }
  return [
    { name: "API round trip, a call that only asks the daemon", unit: "ms", values: roundTrips },
    { name: "API round trip, a sandbox's info", unit: "ms", values: infos },
    { name: `file of ${FILE_BYTES / 1e6} MB into a container`, unit: "MB/s", values: up },
    { name: `file of ${FILE_BYTES / 1e6} MB out of a container`, unit: "MB/s", values: down },
  ];
}

export async function measureStdout(runtime: ConnectedRuntime): Promise<Measurement[]> {
  await using sandbox = await createSleeper(runtime);
  const values = await repeat(STREAMS, () => outputMbPerSecond(sandbox, STREAM_BYTES));
  return [{ name: "1 GB of standard output of one process", unit: "MB/s", values }];
}

/** Sandboxes that are written down and stopped: one is made, and its record copied under other ids and names. */
export async function measureList(dir: string): Promise<Measurement[]> {
  const paths = ownPaths(dir, "list");
  const first = await Runtime.connect({ paths });
  const made = await createSleeper(first);
  await made.stop({ timeoutMs: 0 });
  await endDaemon(first);
  await copyRecord(join(paths.root, "sandboxes"), made.id);
  let runtime: ConnectedRuntime | undefined;
  const startMs = await time(async () => {
    runtime = await Runtime.connect({ paths });
  });
  if (runtime === undefined) throw new Error("there is no daemon");
  try {
    const { sandboxes } = runtime;
    const values = await repeat(LISTS, () =>
      time(async () => {
        const { length } = await sandboxes.list();
        if (length !== RECORDED) throw new Error(`${length} sandboxes are listed, not ${RECORDED}`);
      }),
    );
    const many = RECORDED.toLocaleString("en");
    return [
      { name: `list of ${many} recorded sandboxes`, unit: "ms", values },
      { name: `daemon's start with ${many} recorded sandboxes, to its answer`, unit: "ms", values: [startMs] },
      { name: `daemon's memory with ${many} recorded sandboxes`, unit: "MB", values: await residentMb(runtime) },
    ];
  } finally {
    await endDaemon(runtime);
  }
}

/** Resident memory of a daemon of its own, with sandboxes that run and that it has made; paused, so that they leave it in peace. */
export async function measureDaemonMemory(dir: string): Promise<Measurement[]> {
  const paths = ownPaths(dir, "memory");
  const runtime = await Runtime.connect({ paths });
  const made: SandboxHandle[] = [];
  const measurements: Measurement[] = [];
  try {
    for (const count of SANDBOXES) {
      while (made.length < count) {
        const sandbox = await createSleeper(runtime);
        made.push(sandbox);
        await sandbox.pause();
      }
      const values = await residentMb(runtime);
      measurements.push({ name: `daemon's memory with ${count} sandboxes`, unit: "MB", values });
    }
  } finally {
    for (const sandbox of made) await sandbox.delete({ force: true });
    await endDaemon(runtime);
  }
  return measurements;
}

/** From a connection to the published port of a sandbox that has no VM to the first byte of its answer. */
export async function measureWake(runtime: ConnectedRuntime): Promise<Measurement[]> {
  await using sandbox = await runtime.sandboxes.create({
    image: "node",
    network: { mode: "user", ports: [{ hostAddress: "127.0.0.1", containerPort: 80 }] },
    container: { command: ["node", "-e", SERVER] },
  });
  const port = (await sandbox.info()).network?.ports[0]?.hostPort ?? 0;
  await until(() => answers(port), { timeoutMs: ANSWER_TIMEOUT_MS, what: "the server's first answer" });
  const values = await repeat(WAKES, async () => {
    await sandbox.hibernate();
    return await time(async () => {
      if (!(await answers(port))) throw new Error("who wakes a sandbox is not answered");
    });
  });
  return [{ name: "wake from hibernation: connection to first byte", unit: "ms", values }];
}

async function copyRecord(sandboxesDir: string, id: string): Promise<void> {
  const { body, ...header } = decodeEnvelope(await readFile(join(sandboxesDir, id, "sandbox.json")), id);
  const name = parseJson(body, id, "INTERNAL").field("name").string();
  for (let index = (await readdir(sandboxesDir)).length; index < RECORDED; index += 1) {
    const copy = newId();
    const dir = join(sandboxesDir, copy);
    await mkdir(dir, { mode: 0o700 });
    await cp(join(sandboxesDir, id, "logs"), join(dir, "logs"), { recursive: true });
    const text = body.replaceAll(id, copy).replaceAll(`"${name}"`, `"${copy}"`);
    await writeFile(join(dir, "sandbox.json"), encodeEnvelope(header, parseJson(text, copy, "INTERNAL").raw), {
      mode: 0o600,
    });
  }
}

async function residentMb(runtime: ConnectedRuntime): Promise<number[]> {
  const { pid } = await runtime.daemon();
  return await repeat(MEMORY_SAMPLES, async () => {
    await sleep(1000);
    const text = await readFile(`/proc/${pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1]) / 1000;
  });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, agent: false, timeout: ANSWER_TIMEOUT_MS }, (response) => {
      response.once("data", () => {
        resolve(true);
        response.destroy();
      });
    });
    request.on("error", () => resolve(false));
    request.on("timeout", () => request.destroy(new Error("no answer in time")));
  });
}
