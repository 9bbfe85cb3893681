/**
 * Where the time of a restore goes, seen from inside: the steps that the runtime publishes, in a runtime of this process's own. The source is
 * gone, so that nothing but the copy talks to a QEMU.
 */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { join } from "node:path";

import { decodeField, STEP_CHANNEL, silentLog } from "../src/base/index.ts";
import { Runtime, resolvePaths } from "../src/sdk/index.ts";
import { createFilled } from "./checkpoints.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
const MEMORY_MIB = 256;

interface Told {
  readonly step: string;
  readonly phase: string;
  readonly atMs: number;
}

export async function measureLoad(dir: string): Promise<Measurement[]> {
  const paths = resolvePaths(
    { root: join(dir, "load") },
    { ...process.env, BELLJAR_RUN: join(dir, "load-run") },
    process.getuid?.() ?? 0,
  );
  await using runtime = await Runtime.open({ paths, log: silentLog });
  const found: Measurement[] = [];
  for (const fillMb of [1, 64]) {
    const source = await createFilled(runtime, MEMORY_MIB, fillMb);
    const { id } = await source.checkpoint();
    await source.delete({ force: true });
    const stateMs: number[] = [];
    const thawMs: number[] = [];
    const loadMs = await repeat(REPEATS, async () => {
      const told: Told[] = [];
      const listen = (message: unknown): void => {
        const field = decodeField(message, "step", "INTERNAL");
        const step = `${field.field("kind").string()} ${field.field("name").string()}`;
        told.push({ step, phase: field.field("phase").string(), atMs: performance.now() });
      };
      subscribe(STEP_CHANNEL, listen);
      const begin = performance.now();
      await using _copy = await runtime.checkpoints.restore(id);
      const end = performance.now();
      unsubscribe(STEP_CHANNEL, listen);
      const runs = told.find(({ step, phase }) => step === "qmp cont" && phase === "before")?.atMs ?? end;
      // A QEMU that waited already has said so before.
      const waits = told.findLast(({ step, phase, atMs }) => isReady(step) && phase === "after" && atMs < runs)?.atMs;
      stateMs.push((waits ?? begin) - begin);
      thawMs.push(end - runs);
      if (process.env["BELLJAR_BENCH_STEPS"] !== undefined) print(told, begin);
      return runs - (waits ?? begin);
    });
    await runtime.checkpoints.remove(id);
    const what = `restore, ${MEMORY_MIB} MiB guest, ${fillMb} MB written`;
    found.push(
      { name: `${what}: call to a QEMU that waits`, unit: "ms", values: stateMs },
      { name: `${what}: load, until its CPUs run`, unit: "ms", values: loadMs },
      { name: `${what}: CPUs run to agent's reply, containers running`, unit: "ms", values: thawMs },
    );
  }
  return found;
}

const isReady = (step: string): boolean => step === "qmp qmp_capabilities";

function print(told: readonly Told[], begin: number): void {
  for (const { step, phase, atMs } of told) {
    process.stdout.write(`${(atMs - begin).toFixed(1).padStart(8)} ${phase.padEnd(6)} ${step}\n`);
  }
}
