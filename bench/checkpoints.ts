/**
 * Checkpoints, restores and forks, through the daemon: how long the guest stands still with so much memory changed since its
 * template, how long its containers do, and how soon a copy answers.
 */
import { readFile } from "node:fs/promises";
import type { CheckpointInfo, Runtime, SandboxHandle } from "../src/sdk/index.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
const FORKS = [1, 10, 50];
const MIB = 1024 * 1024;

/** Memory of the guest, and what is written into it on top of what a container's start changes. */
const LOADS = [
  { memoryMib: 256, fillMb: 0 },
  { memoryMib: 256, fillMb: 8 },
  { memoryMib: 256, fillMb: 64 },
  { memoryMib: 1024, fillMb: 0 },
  { memoryMib: 1024, fillMb: 512 },
  { memoryMib: 4096, fillMb: 0 },
] as const;

export async function measureCheckpoints(runtime: Runtime): Promise<Measurement[]> {
  const found: Measurement[] = [];
  for (const { memoryMib, fillMb } of LOADS) {
    await using sandbox = await createFilled(runtime, memoryMib, fillMb);
    const taken: CheckpointInfo[] = [];
    const wholeMs: number[] = [];
    for (let turn = 0; turn < REPEATS; turn += 1) {
      const start = performance.now();
      taken.push(await sandbox.checkpoint());
      wholeMs.push(performance.now() - start);
      await runtime.checkpoints.remove(taken.at(-1)?.id ?? "");
    }
    const what = `${memoryMib} MiB guest, ${fillMb} MB written`;
    found.push(
      { name: `checkpoint, ${what}: guest stopped`, unit: "ms", values: taken.map(({ pauseMs }) => pauseMs) },
      { name: `checkpoint, ${what}: containers still`, unit: "ms", values: taken.map(({ frozenMs }) => frozenMs) },
      { name: `checkpoint, ${what}: whole call`, unit: "ms", values: wholeMs },
      { name: `checkpoint, ${what}: pages`, unit: "MB", values: taken.map(({ pagesBytes }) => pagesBytes / 1e6) },
    );
  }
  return [...found, ...(await measureCopies(runtime))];
}

async function measureCopies(runtime: Runtime): Promise<Measurement[]> {
  await using sandbox = await createFilled(runtime, 256, 0);
  const { id } = await sandbox.checkpoint();
  const firstExecMs: number[] = [];
  const restoredMs = await repeat(REPEATS, async () => {
    const start = performance.now();
    await using copy = await runtime.checkpoints.restore(id);
    const tookMs = performance.now() - start;
    await copy.exec(["true"]);
    firstExecMs.push(performance.now() - start);
    return tookMs;
  });
  await runtime.checkpoints.remove(id);
  const found: Measurement[] = [
    { name: "restore: call to agent's reply, containers running", unit: "ms", values: restoredMs },
    { name: "restore: call to the end of a first exec", unit: "ms", values: firstExecMs },
  ];
  for (const count of FORKS) {
    const memoryMb: number[] = [];
    const values = await repeat(count === 50 ? 2 : 5, async () => {
      const start = performance.now();
      const forks = await sandbox.fork(count);
      const tookMs = performance.now() - start;
      for (const fork of forks) memoryMb.push(await privateMb(fork));
      for (const fork of forks) await fork[Symbol.asyncDispose]();
      return tookMs;
    });
    found.push(
      { name: `fork of ${count}: call to all running`, unit: "ms", values },
      { name: `fork of ${count}: memory of each of its own, QEMU's included`, unit: "MB", values: memoryMb },
    );
  }
  return found;
}

async function createFilled(runtime: Runtime, memoryMib: number, fillMb: number): Promise<SandboxHandle> {
  const sandbox = await runtime.sandboxes.create({
    image: "busybox",
    memoryMib,
    container: { command: ["sleep", "3600"], tmpfs: [`/fill:size=${fillMb + 16}m`] },
  });
  await sandbox.exec(["sh", "-c", `head -c ${fillMb * 1_000_000} /dev/zero | tr '\\0' x > /fill/data`]);
  return sandbox;
}

/** What the VMM's process shares with nobody. */
async function privateMb(sandbox: SandboxHandle): Promise<number> {
  const { vmm } = await sandbox.info();
  const text = await readFile(`/proc/${vmm?.pid}/smaps_rollup`, "utf8");
  let kib = 0;
  for (const [, size] of text.matchAll(/^Private_(?:Clean|Dirty): +(\d+) kB$/gm)) kib += Number(size);
  return (kib * 1024) / MIB;
}
