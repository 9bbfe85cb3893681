/**
 * What is made of a checkpoint from copies that wait for it, loaded: how soon their containers run, say something, and have carried out a
 * command. In a runtime of this process's own, which keeps one of each kind waiting; every turn takes as long as the next one needs to be there.
 */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { decodeField, STEP_CHANNEL, silentLog } from "../src/base/index.ts";
import { Runtime, resolvePaths, type SandboxHandle } from "../src/sdk/index.ts";
import { createFilled } from "./checkpoints.ts";
import { firstOutput } from "./copies.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
const MEMORY_MIB = 256;
const FILL_MB = 1;
const READY_MAX_MS = 120_000;
const READY_POLL_MS = 100;
/** What is over by then: the removal of the copy before, and writing. */
const REST_MS = 1_000;

/** Since it was last asked, so many came to wait. */
class Arrivals {
  #count = 0;
  readonly log = {
    ...silentLog,
    info: (message: string): void => {
      if (message === "a standby copy waits for a sandbox") this.#count += 1;
    },
  };

  async next(): Promise<void> {
    const untilMs = performance.now() + READY_MAX_MS;
    while (this.#count === 0) {
      if (performance.now() > untilMs) throw new Error("no copy waits");
      await sleep(READY_POLL_MS);
    }
    this.#count = 0;
    await sleep(REST_MS);
  }
}

export async function measureStandbys(dir: string): Promise<Measurement[]> {
  const paths = resolvePaths(
    { root: join(dir, "standbys") },
    { ...process.env, BELLJAR_RUN: join(dir, "standbys-run") },
    process.getuid?.() ?? 0,
  );
  const arrivals = new Arrivals();
  await using runtime = await Runtime.open({ paths, log: arrivals.log, spareCount: 1 });
  const turns = async (
    make: () => Promise<SandboxHandle>,
    look: (copy: SandboxHandle, start: number) => Promise<number>,
  ): Promise<number[]> => {
    await (await make()).delete({ force: true });
    return await repeat(REPEATS, async () => {
      await arrivals.next();
      const start = performance.now();
      await using copy = await make();
      return await look(copy, start);
    });
  };
  return [...(await measureRestored(runtime, turns)), ...(await measureCreated(runtime, turns))];
}

type Turns = (
  make: () => Promise<SandboxHandle>,
  look: (copy: SandboxHandle, start: number) => Promise<number>,
) => Promise<number[]>;

async function measureRestored(runtime: Runtime, turns: Turns): Promise<Measurement[]> {
  const source = await createFilled(runtime, MEMORY_MIB, FILL_MB);
  const { id } = await source.checkpoint();
  await source.delete({ force: true });
  const runMs: number[] = [];
  const loadMs: number[] = [];
  const answerMs: number[] = [];
  let told: { readonly step: string; readonly phase: string; readonly atMs: number }[] = [];
  const listen = (message: unknown): void => {
    const field = decodeField(message, "step", "INTERNAL");
    const step = `${field.field("kind").string()} ${field.field("name").string()}`;
    told.push({ step, phase: field.field("phase").string(), atMs: performance.now() });
  };
  subscribe(STEP_CHANNEL, listen);
  const outputMs = await turns(
    async () => {
      told = [];
      return await runtime.checkpoints.restore(id);
    },
    async (copy, start) => {
      runMs.push(performance.now() - start);
      await firstOutput(copy);
      const tookMs = performance.now() - start;
      const at = (wanted: string, phase: string): number =>
        told.find(({ step, phase: each }) => step.startsWith(wanted) && each === phase)?.atMs ?? Number.NaN;
      // From the sandbox's place among those of the root, on disk, to the guest's first instruction.
      loadMs.push(at("qmp cont", "before") - at("store syncDirectory sandboxes", "after"));
      // Whatever it answers first.
      answerMs.push(at("agent ", "after") - start);
      return tookMs;
    },
  );
  unsubscribe(STEP_CHANNEL, listen);
  const execMs = await turns(
    () => runtime.checkpoints.restore(id),
    async (copy, start) => {
      await copy.exec(["true"]);
      return performance.now() - start;
    },
  );
  await runtime.checkpoints.remove(id);
  const what = `restore from a copy that waits, ${MEMORY_MIB} MiB guest, ${FILL_MB} MB written`;
  return [
    { name: `${what}: call to its containers running`, unit: "ms", values: runMs },
    { name: `${what}: load, until its CPUs run`, unit: "ms", values: loadMs },
    { name: `${what}: call to the agent's own reply`, unit: "ms", values: answerMs },
    { name: `${what}: call to its container's next output`, unit: "ms", values: outputMs },
    { name: `${what}: call to the end of a first exec`, unit: "ms", values: execMs },
  ];
}

async function measureCreated(runtime: Runtime, turns: Turns): Promise<Measurement[]> {
  const warm = await runtime.sandboxes.create({ image: "busybox", container: { keepAlive: true } });
  await warm.exec(["echo", "warm"]);
  const { id } = await warm.checkpoint({ asTemplate: true });
  await warm.delete({ force: true });
  const values = await turns(
    () => runtime.sandboxes.create({ template: id }),
    async (copy, start) => {
      const { stdout } = await copy.exec(["echo", "hello"]);
      if (stdout !== "hello\n") throw new Error(`a first command wrote ${stdout}`);
      return performance.now() - start;
    },
  );
  await runtime.checkpoints.remove(id);
  return [{ name: "create from a copy of a warm sandbox that waits to a first command's output", unit: "ms", values }];
}
