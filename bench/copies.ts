/** What is made of a checkpoint, and of a running sandbox: how soon copies are there, and what each of them takes of the host's memory. */
import { readFile } from "node:fs/promises";
import type { Runtime, SandboxHandle } from "../src/sdk/index.ts";
import { createFilled } from "./checkpoints.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
const MEMORY_MIB = 256;
/** How many at once, and how often: fifty take long where nothing is accelerated. */
const FORKS = [
  { count: 1, times: 20 },
  { count: 10, times: 5 },
  { count: 50, times: 3 },
] as const;
const OUTPUT_TIMEOUT_MS = 60_000;
const KIB = 1024;

export async function measureRestores(runtime: Runtime): Promise<Measurement[]> {
  const found: Measurement[] = [];
  for (const fillMb of [1, 64]) {
    await using sandbox = await createFilled(runtime, MEMORY_MIB, fillMb);
    const { id } = await sandbox.checkpoint();
    // As it is wherever a checkpoint is restored for the machine to have work to do: the source stands still.
    await sandbox.pause();
    const outputMs: number[] = [];
    const execMs: number[] = [];
    const restoredMs = await repeat(REPEATS, async () => {
      const start = performance.now();
      await using copy = await runtime.checkpoints.restore(id);
      const tookMs = performance.now() - start;
      await firstOutput(copy);
      outputMs.push(performance.now() - start);
      return tookMs;
    });
    await repeat(REPEATS, async () => {
      const start = performance.now();
      await using copy = await runtime.checkpoints.restore(id);
      await copy.exec(["true"]);
      execMs.push(performance.now() - start);
      return 0;
    });
    await runtime.checkpoints.remove(id);
    const what = `restore, ${MEMORY_MIB} MiB guest, ${fillMb} MB written`;
    found.push(
      { name: `${what}: call to its containers running`, unit: "ms", values: restoredMs },
      { name: `${what}: call to its container's next output`, unit: "ms", values: outputMs },
      { name: `${what}: call to the end of a first exec`, unit: "ms", values: execMs },
    );
  }
  return found;
}

export async function measureForks(runtime: Runtime): Promise<Measurement[]> {
  const found: Measurement[] = [];
  await using sandbox = await createIdle(runtime);
  for (const { count, times } of FORKS) {
    const memory: Memory[] = [];
    const values = await repeat(times, async () => {
      const start = performance.now();
      const forks = await sandbox.fork(count);
      const tookMs = performance.now() - start;
      for (const fork of forks) memory.push(await memoryOf(fork));
      for (const fork of forks) await fork[Symbol.asyncDispose]();
      return tookMs;
    });
    found.push(
      { name: `fork of ${count}: call to all running`, unit: "ms", values },
      { name: `idle fork of ${count}: guest pages of its own`, unit: "MB", values: memory.map(({ guest }) => guest) },
      { name: `idle fork of ${count}: the VMM's own memory`, unit: "MB", values: memory.map(({ vmm }) => vmm) },
    );
  }
  return found;
}

async function createIdle(runtime: Runtime): Promise<SandboxHandle> {
  return await runtime.sandboxes.create({ image: "busybox", memoryMib: MEMORY_MIB, container: { keepAlive: true } });
}

export async function firstOutput(copy: SandboxHandle): Promise<void> {
  let text = "";
  const signal = AbortSignal.timeout(OUTPUT_TIMEOUT_MS);
  for await (const { data } of copy.main.logs({ follow: true, signal })) {
    text += Buffer.from(data).toString("latin1");
    if (text.includes(`${copy.id}\n`)) return;
  }
  throw new Error("a copy writes nothing");
}

interface Memory {
  readonly guest: number;
  readonly vmm: number;
}

/** Pages that the VMM's process has of its own: of the mapping of the guest's memory, and everywhere else. In MB. */
async function memoryOf(sandbox: SandboxHandle): Promise<Memory> {
  const { vmm, memoryMib } = await sandbox.info();
  const text = await readFile(`/proc/${vmm?.pid}/smaps`, "utf8");
  const areas = text.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).map((area) => {
    const path = /^\S+ \S+ \S+ \S+ \S+ +(\/.*)$/m.exec(area)?.[1];
    const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(area)?.[1] ?? 0);
    return { path, sizeKib: kib("Size"), ownKib: kib("Anonymous") };
  });
  // The guest's memory is one file, mapped in one piece or in several.
  const sizes = new Map<string, number>();
  for (const { path, sizeKib } of areas) if (path !== undefined) sizes.set(path, (sizes.get(path) ?? 0) + sizeKib);
  const file = [...sizes].find(([, sizeKib]) => sizeKib >= memoryMib * KIB)?.[0];
  if (file === undefined) throw new Error("a fork's memory is not a file");
  const sum = (isGuest: boolean): number =>
    areas.filter(({ path }) => (path === file) === isGuest).reduce((total, { ownKib }) => total + ownKib, 0);
  return { guest: (sum(true) * KIB) / 1e6, vmm: (sum(false) * KIB) / 1e6 };
}
