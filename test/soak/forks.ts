/**
 * `forks.ts [--count N] [--at-once N] [--minutes N] [--json FILE] [--root DIR]`: copies of one checkpoint, each of which must be somebody else: random numbers, ids
 * and names that no other copy has, and the host's time. Run by hand, once for a release; N is 200 unless told.
 *
 * The first process of the source has drawn random numbers before it is saved, and tells the time all along: how far a copy's clock
 * is off is the smallest difference between a time and its arrival, which has the way to the host in it.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { parseJson, silentLog } from "../../src/base/index.ts";
import { Runtime, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { runInOwnPlace } from "../support/own-place.ts";

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "200" },
    "at-once": { type: "string", default: "2" },
    minutes: { type: "string", default: "600" },
    json: { type: "string" },
    root: { type: "string" },
  },
});
const COUNT = Number(values.count);
const AT_ONCE = Number(values["at-once"]);
/** Times that are looked at in each copy. */
const TIMES = 20;
/** Tells the time; draws its first random values when it has become somebody else. */
const PROGRAM = `
const { readFileSync, watch } = require("fs"); const crypto = require("crypto");
let isDrawn = false;
watch("/run/belljar/identity", () => {
  if (isDrawn || !readFileSync("/run/belljar/identity", "utf8").startsWith("event=restored")) return;
  isDrawn = true;
  console.log("first-uuid " + crypto.randomUUID());
  console.log("first-bytes " + crypto.randomBytes(16).toString("hex"));
});
setInterval(() => console.log(Date.now()), 100);`;
/** Each is a program that starts after the fork; a line of name and value for each. */
const LOOK = `
  echo urandom $(od -An -tx1 -N16 /dev/urandom | tr -d ' ')
  echo uuid $(cat /proc/sys/kernel/random/uuid)
  echo boot-id $(cat /proc/sys/kernel/random/boot_id)
  echo machine-id $(cat /etc/machine-id)
  echo hostname $(hostname)
  echo mac $(cat /sys/class/net/e*/address)
  echo node-uuid $(node -p 'crypto.randomUUID()')
  echo node-bytes $(node -p 'crypto.randomBytes(16).toString("hex")')`;

const VALUES = 10;

interface Copy {
  readonly values: ReadonlyMap<string, string>;
  readonly clockMs: number;
  readonly restoreMs: number;
}

const say = (line: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

/** How far its clock is off, and what its first process has drawn. */
async function listen(sandbox: SandboxHandle, drawn: Map<string, string>): Promise<number> {
  let best: number | undefined;
  let seen = 0;
  const from = performance.timeOrigin + performance.now();
  let rest = "";
  for await (const { data } of sandbox.main.logs({ follow: true, signal: AbortSignal.timeout(60_000) })) {
    const arrivedMs = performance.timeOrigin + performance.now();
    const lines = `${rest}${Buffer.from(data).toString()}`.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [, name, value] = /^(first-\w+) (\S+)$/.exec(line) ?? [];
      if (name !== undefined && value !== undefined) drawn.set(name, value);
      const offMs = arrivedMs - Number(line);
      // What the log has from the source, and from before somebody listened, came late.
      if (!(Number(line) >= from)) continue;
      if (best === undefined || Math.abs(offMs) < Math.abs(best)) best = offMs;
      seen += 1;
    }
    if (seen >= TIMES && best !== undefined) return best;
  }
  throw new Error("the copy tells no time");
}

async function look(runtime: Runtime, checkpoint: string): Promise<Copy> {
  const beginMs = performance.now();
  const sandbox = await runtime.checkpoints.restore(checkpoint);
  const restoreMs = performance.now() - beginMs;
  try {
    const { stdout, stderr } = await sandbox.exec(["sh", "-c", LOOK]);
    const lines = stdout.trim().split("\n");
    const found = new Map(lines.map((line) => [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)]));
    const clockMs = await listen(sandbox, found);
    if (found.size !== VALUES || [...found.values()].includes("")) throw new Error(`a copy answers ${stdout}${stderr}`);
    if (found.get("hostname") !== sandbox.id) throw new Error(`a copy has the name ${found.get("hostname")}`);
    return { values: found, clockMs, restoreMs };
  } finally {
    await sandbox.delete({ force: true });
  }
}

/** With a root that is kept, the one of the run before. */
async function checkpointOf(runtime: Runtime): Promise<string> {
  const [kept] = await runtime.checkpoints.list();
  if (kept !== undefined) {
    copies.push(...(values.json === undefined ? [] : await readCopies(values.json)));
    return kept.id;
  }
  const container = { command: ["node", "-e", PROGRAM] };
  const source = await runtime.sandboxes.create({ image: "node", network: { mode: "user" }, container });
  await listen(source, new Map());
  const { id, pauseMs, frozenMs } = await source.checkpoint();
  say(`saved: stopped for ${pauseMs.toFixed(1)} ms, its workload for ${frozenMs.toFixed(1)} ms`);
  await source.delete({ force: true });
  return id;
}

async function readCopies(path: string): Promise<Copy[]> {
  return parseJson(await readFile(path, "utf8"), path, "INTERNAL").array((copy) => ({
    values: new Map(Object.entries(copy.field("values").map((value) => value.string()))),
    clockMs: copy.field("clockMs").number(),
    restoreMs: copy.field("restoreMs").number(),
  }));
}

const { dir } = await runInOwnPlace("fk-");
const shared = resolvePaths({}, process.env, 0);
const own = resolvePaths(
  { root: values.root ?? join(dir, "root") },
  { ...process.env, BELLJAR_RUN: join(dir, "run") },
  0,
);
const runtime = await Runtime.open({ paths: { ...own, templates: shared.templates }, log: silentLog });
const copies: Copy[] = [];
try {
  const id = await checkpointOf(runtime);
  const untilMs = performance.now() + Number(values.minutes) * 60_000;
  let begun = copies.length;
  const worker = async (): Promise<void> => {
    while (begun < COUNT && performance.now() < untilMs) {
      begun += 1;
      copies.push(await look(runtime, id));
      if (copies.length % 10 === 0) say(`${copies.length} copies`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
} finally {
  for (const { id } of await runtime.sandboxes.list()) {
    await (await runtime.sandboxes.get(id)).delete({ force: true }).catch((error: unknown) => say(String(error)));
  }
  await runtime[Symbol.asyncDispose]();
}

let repeated = 0;
for (const name of copies[0]?.values.keys() ?? []) {
  const different = new Set(copies.map((copy) => copy.values.get(name))).size;
  say(`${name.padEnd(12)} ${different} different values in ${copies.length} copies`);
  repeated += copies.length - different;
}
const clocks = copies.map(({ clockMs }) => clockMs).toSorted((a, b) => a - b);
const restores = copies.map(({ restoreMs }) => restoreMs).toSorted((a, b) => a - b);
const at = (sorted: readonly number[], share: number): string =>
  (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1);
say(`${copies.length} copies, ${repeated} values repeated`);
say(`clocks: ${at(clocks, 0)} to ${at(clocks, 1)} ms off, median ${at(clocks, 0.5)} ms`);
say(`restore: median ${at(restores, 0.5)} ms, p95 ${at(restores, 0.95)} ms`);
if (values.json !== undefined) {
  const plain = copies.map((copy) => ({ ...copy, values: Object.fromEntries(copy.values) }));
  await writeFile(values.json, JSON.stringify(plain, undefined, 2));
}
if (repeated > 0) process.exitCode = 1;
