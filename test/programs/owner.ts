/**
 * `owner.ts ROOT RUN`: a process that owns a root and does what it is told, one line of JSON in, one line out, until it is
 * killed. Told to, it ends itself with SIGKILL at one exact point of an operation: before, during or after a step (a change on
 * disk, a QMP command, an agent call, a child process). `during` is when the step has been begun and nothing has come back.
 */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connectAgent } from "../../src/agent-client/index.ts";
import { BelljarError, createLog, messageChain, STEP_CHANNEL, systemClock } from "../../src/base/index.ts";
import { Pool, Spares, Standbys } from "../../src/checkpoint/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { createQemu } from "../../src/hypervisor/index.ts";
import { type ImageStore, openImageStore } from "../../src/images/index.ts";
import { openNetworks } from "../../src/network/index.ts";
import { openHostCgroups } from "../../src/resources/index.ts";
import { openRuntime, type RuntimeCore, readLayerUse, type SandboxHandle } from "../../src/runtime/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { sharedTemplates } from "../support/templates.ts";
import {
  type Answer,
  type Command,
  decodeCommand,
  type KillPoint,
  type Owned,
  operations,
  prepare,
  type StepTold,
  stepName,
} from "./owner-commands.ts";
import { OwnerRoom } from "./owner-room.ts";

const [rootDir, runDir] = process.argv.slice(2);
if (rootDir === undefined || runDir === undefined) {
  process.stderr.write("usage: owner.ts ROOT RUN\n");
  process.exit(2);
}
const log = createLog({ level: "info", json: false, write: (line) => process.stderr.write(line) });
const hypervisor = createQemu({ log });
const networks = openNetworks({ rootDir });
const templates = sharedTemplates(rootDir, runDir);
const cgroups = openHostCgroups({ rootDir, log });
const places = { hypervisor, connectAgent, networks, cgroups, runDir, clock: systemClock };
// Put into what each is told of its size, which changes.
const pool = new OwnerRoom("VM", log, (own) => new Pool(Object.assign(own, places)));
const kept = { ...places, checkpointsDir: join(rootDir, "checkpoints") };
const spares = new OwnerRoom("spare VMM", log, (own) => new Spares(Object.assign(own, kept)));
const copied = { ...places, sandboxesDir: join(rootDir, "sandboxes"), layersDir: join(rootDir, "images/layers") };
const standbys = new OwnerRoom("standby copy", log, (own) => new Standbys(Object.assign(own, copied)));
let runtime: RuntimeCore | undefined;
let images: ImageStore | undefined;

const handlers: { [D in Command["do"]]: (command: Extract<Command, { do: D }>) => Promise<Answer> } = {
  open: async () => {
    const begin = performance.now();
    runtime = await open(rootDir, runDir);
    return { tookMs: performance.now() - begin, recovered: runtime.recovered.map((each) => ({ ...each })) };
  },
  list: async () => ({ sandboxes: await opened().sandboxes.list() }),
  "make witness": async ({ name, command }) => {
    await opened().sandboxes.create({ image: "busybox", name, container: { command } });
    return {};
  },
  delete: async ({ sandbox }) => {
    await (await opened().sandboxes.get(sandbox)).delete({ force: true });
    return {};
  },
  prepare: async ({ base, command }) => {
    await prepare(await owned(), base, command);
    return {};
  },
  operate: async ({ operation, kill }) => {
    const steps: StepTold[] = [];
    const listener = watchSteps(steps, kill);
    const begin = performance.now();
    subscribe(STEP_CHANNEL, listener);
    try {
      await operations[operation](await owned());
    } finally {
      unsubscribe(STEP_CHANNEL, listener);
    }
    return { tookMs: performance.now() - begin, steps };
  },
  read: async ({ sandbox, offset, waitMs }) => ({ ...(await readOn(sandbox, BigInt(offset), waitMs)) }),
  load: async ({ sandbox, loops }) => {
    const handle = await opened().sandboxes.get(sandbox);
    for (let loop = 0; loop < loops; loop += 1) void execForEver(handle);
    return {};
  },
  leftovers: async ({ sandbox }) => await collectLeftovers(await opened().sandboxes.get(sandbox)),
  exec: async ({ sandbox, command }) => {
    const handle = await opened().sandboxes.get(sandbox);
    return { ...(await handle.exec(command)) };
  },
  usage: async () => {
    global.gc?.();
    const { rss, heapUsed, external } = process.memoryUsage();
    const descriptors = (await readdir("/proc/self/fd")).length;
    return { rss, heapUsed, external, descriptors, resources: process.getActiveResourcesInfo().length };
  },
  release: async () => {
    await opened().release();
    runtime = undefined;
    return {};
  },
};

async function open(root: string, run: string): Promise<RuntimeCore> {
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  return await openRuntime({
    hypervisor,
    networks,
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImages: openGuestImages({ dir: guest, log }),
    images: await openImages(root),
    connectAgent,
    templates,
    pool: pool.room,
    spares: spares.room,
    standbys: standbys.room,
    rootDir: root,
    runDir: run,
    clock: systemClock,
    log,
  });
}

async function openImages(root: string): Promise<ImageStore> {
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  return await openImageStore({ dir: join(root, "images"), guestDir: guest, log, layerUse: () => readLayerUse(root) });
}

async function owned(): Promise<Owned> {
  const { sandboxes, volumes, checkpoints } = opened();
  images ??= await openImages(rootDir ?? "");
  return { sandboxes, volumes, images, checkpoints, templates, pool, spares, standbys };
}

function opened(): RuntimeCore {
  if (runtime === undefined) throw new Error("the root is not open");
  return runtime;
}

function watchSteps(steps: StepTold[], kill: KillPoint | undefined): (message: unknown) => void {
  const counts = new Map<string, number>();
  return (message) => {
    const { step, phase } = stepName(message);
    const key = `${phase} ${step}`;
    const occurrence = (counts.get(key) ?? 0) + 1;
    counts.set(key, occurrence);
    steps.push({ step, phase, occurrence });
    if (kill?.step !== step || kill.occurrence !== occurrence) return;
    const end = (): boolean => process.kill(process.pid, "SIGKILL");
    if (kill.phase === phase) end();
    // The step's own first move happens before this process turns to anything else.
    else if (kill.phase === "during" && phase === "before") setImmediate(end);
  };
}

/** What a first process has written from an offset on, up to now, and one more piece of what it writes then. */
async function readOn(
  sandbox: string,
  offset: bigint,
  waitMs: number,
): Promise<{ text: string; next: string; lost: string }> {
  const { main } = await opened().sandboxes.get(sandbox);
  const child = await main.attach({ stdoutOffset: offset });
  const pieces: string[] = [];
  let next = offset;
  let lost = 0n;
  const take = async (wait: number): Promise<number> => {
    const piece = await child.readOutput({ stream: 1, offset: next, maxBytes: 256 * 1024, waitMs: wait });
    lost += piece.offset - next;
    next = piece.offset + BigInt(piece.data.length);
    pieces.push(Buffer.from(piece.data).toString("latin1"));
    return piece.data.length;
  };
  const untilMs = performance.now() + 5_000;
  while ((await take(0)) > 0 && performance.now() < untilMs);
  if (waitMs > 0) await take(waitMs);
  await child.readOutput({ stream: 1, offset: next, maxBytes: 0, waitMs: 0, detach: true });
  return { text: pieces.join(""), next: String(next), lost: String(lost) };
}

const LOAD_COMMAND = ["sh", "-c", "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done"];
const LOAD_OUTPUT = Array.from({ length: 300 }, (_, i) => `${i}\n`).join("");

/** Until the process dies. */
async function execForEver(handle: SandboxHandle): Promise<void> {
  for (;;) {
    const { stdout, exitCode } = await handle.exec(LOAD_COMMAND);
    if (exitCode === 0 && stdout === LOAD_OUTPUT) continue;
    process.stderr.write(`wrong output of a command under load: status ${exitCode}, ${stdout.length} bytes\n`);
    process.exit(3);
  }
}

/** Waits for the processes that a dead owner had started, checks what is left of their output, and releases them. */
async function collectLeftovers(handle: SandboxHandle): Promise<Answer> {
  const { main } = handle;
  const infos = (await main.processes()).filter(({ id }) => id !== "");
  const wrong: string[] = [];
  for (const { id } of infos) {
    const child = await main.process(id);
    let text = "";
    let first: bigint | undefined;
    for (let end = false, offset = 0n; !end; ) {
      const piece = await child.readOutput({ stream: 1, offset, maxBytes: 64 * 1024, waitMs: 10_000 });
      first ??= piece.offset;
      text += Buffer.from(piece.data).toString("latin1");
      offset = piece.offset + BigInt(piece.data.length);
      end = piece.end;
    }
    const { exitCode } = await child.status;
    if (exitCode !== 0 || text !== LOAD_OUTPUT.slice(Number(first))) {
      wrong.push(`${id}: status ${exitCode}, ${text.length} bytes from ${first}`);
    }
    await child.release();
  }
  return { found: infos.length, wrong };
}

function tell(answer: unknown): void {
  const plain = (_key: string, value: unknown): unknown => (typeof value === "bigint" ? String(value) : value);
  process.stdout.write(`${JSON.stringify(answer, plain)}\n`);
}

async function handle<D extends Command["do"]>(command: Extract<Command, { do: D }>): Promise<Answer> {
  const handler: (command: Extract<Command, { do: D }>) => Promise<Answer> = handlers[command.do];
  return await handler(command);
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    tell({ answer: await handle(decodeCommand(line)) });
  } catch (error) {
    tell({ error: messageChain(error).join(": "), reason: error instanceof BelljarError ? error.reason : undefined });
  }
}
// A driver that is gone needs no owner.
process.exit(0);
