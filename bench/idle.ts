/** What sandboxes that do nothing cost in CPU time: with a daemon that looks after them, and when nobody does. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Runtime } from "../src/sdk/index.ts";
import type { Measurement } from "./measure.ts";
import { endDaemon, ownPaths } from "./own-daemon.ts";
import { createSleeper } from "./sleeper.ts";

const SANDBOXES = 5;
/** What a start leaves to do has been done by then. */
const REST_MS = 15_000;
const LOOK_MS = 10_000;
const LOOKS = 4;
/** Of the kernel's times of processes. */
const MS_PER_TICK = 10;

export async function measureIdle(dir: string): Promise<Measurement[]> {
  const paths = ownPaths(dir, "idle");
  const pids: number[] = [];
  const runtime = await Runtime.connect({ paths });
  for (let made = 0; made < SANDBOXES; made += 1) {
    const sandbox = await createSleeper(runtime);
    pids.push((await sandbox.info()).vmm?.pid ?? 0);
  }
  try {
    await sleep(REST_MS);
    const looked = await perSecond(pids);
    await endDaemon(runtime);
    await sleep(REST_MS);
    const alone = await perSecond(pids);
    return [
      { name: "CPU time per second of an idle sandbox, looked after", unit: "ms", values: looked },
      { name: "CPU time per second of an idle sandbox without a daemon", unit: "ms", values: alone },
    ];
  } finally {
    const last = await Runtime.connect({ paths });
    for (const { id } of await last.sandboxes.list()) await (await last.sandboxes.get(id)).delete({ force: true });
    await endDaemon(last);
  }
}

/** A value for each process and look. */
async function perSecond(pids: readonly number[]): Promise<number[]> {
  const values: number[] = [];
  for (let look = 0; look < LOOKS; look += 1) {
    const before = await Promise.all(pids.map(cpuMs));
    await sleep(LOOK_MS);
    const after = await Promise.all(pids.map(cpuMs));
    values.push(...after.map((ms, index) => ((ms - (before[index] ?? 0)) * 1000) / LOOK_MS));
  }
  return values;
}

async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}
