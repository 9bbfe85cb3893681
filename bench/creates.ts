/** From nothing to the output of a first command: a sandbox that boots, one that is a copy of a template, one of a warm sandbox. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "../src/base/index.ts";
import { Runtime, resolvePaths, type SandboxCreateConfig, type SandboxHandle } from "../src/sdk/index.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
/** Of each kind of sandbox that VMs wait for: every one takes ten seconds, most of which goes by until the next one waits. */
const POOLED = 12;
/** Time for another VM to wait, looked at so often. */
const REFILL_MAX_MS = 30_000;
const REFILL_POLL_MS = 200;
/** Longer than a rehearsal takes. */
const REHEARSAL_MS = 5_000;

export async function measureCreates(runtime: Runtime): Promise<Measurement[]> {
  const create = async (config: Partial<SandboxCreateConfig>): Promise<number> =>
    await untilOutput(() => runtime.sandboxes.create({ image: "busybox", container: { keepAlive: true }, ...config }));
  // The template, and whatever is only done once.
  await create({});
  const fromTemplate = await repeat(REPEATS, () => create({}));
  const cold = await repeat(REPEATS, () => create({ template: false }));
  await using warm = await runtime.sandboxes.create({ image: "busybox", container: { keepAlive: true } });
  await warm.exec(["echo", "warm"]);
  const { id } = await warm.checkpoint({ asTemplate: true });
  const fromWarm = await repeat(REPEATS, () => untilOutput(() => runtime.sandboxes.create({ template: id })));
  await runtime.checkpoints.remove(id);
  return [
    { name: "create from a template to a first command's output", unit: "ms", values: fromTemplate },
    { name: "create, cold boot, to a first command's output", unit: "ms", values: cold },
    { name: "create from a template of a warm sandbox to a command's output", unit: "ms", values: fromWarm },
  ];
}

/** From a VM that waits, in a runtime of this process's own: with each kind of network and without one, in turns. */
export async function measurePool(dir: string): Promise<Measurement[]> {
  const paths = resolvePaths(
    { root: join(dir, "pool"), run: join(dir, "pool-run") },
    process.env,
    process.getuid?.() ?? 0,
  );
  await using runtime = await Runtime.open({ paths, log: silentLog, poolSize: 1 });
  const measurements: Measurement[] = [];
  // VMs wait for two kinds of sandboxes at most.
  for (const network of ["user", "bridge"] as const) {
    const modes = ["none", network] as const;
    const values = new Map<string, number[]>(modes.map((mode) => [mode, []]));
    const create = (mode: (typeof modes)[number]): Promise<SandboxHandle> =>
      runtime.sandboxes.create({ image: "busybox", container: { keepAlive: true }, network: { mode } });
    for (const mode of modes) await untilOutput(() => create(mode));
    for (let turn = 0; turn < POOLED; turn += 1) {
      for (const mode of modes) {
        await waiting(paths.run, modes.length);
        values.get(mode)?.push(await untilOutput(() => create(mode)));
      }
    }
    for (const [mode, each] of values) {
      const beside = mode === network ? "" : `, beside ${network}`;
      const name = `create with network ${mode} from a VM that waits to a first command's output${beside}`;
      measurements.push({ name, unit: "ms", values: each });
    }
  }
  return measurements;
}

/** Each that waits has a run directory with sockets; between two sandboxes there is no other. */
async function waiting(runDir: string, wanted: number): Promise<void> {
  const untilMs = performance.now() + REFILL_MAX_MS;
  const count = async (): Promise<number> =>
    (await readdir(runDir, { recursive: true })).filter((name) => name.endsWith("agent.sock")).length;
  while ((await count()) < wanted) {
    if (performance.now() > untilMs) throw new Error("no VM waits");
    await sleep(REFILL_POLL_MS);
  }
  // It is started, and rehearses.
  await sleep(REHEARSAL_MS);
}

async function untilOutput(make: () => Promise<SandboxHandle>): Promise<number> {
  const start = performance.now();
  await using sandbox = await make();
  const { stdout } = await sandbox.exec(["echo", "hello"]);
  if (stdout !== "hello\n") throw new Error(`a first command wrote ${stdout}`);
  return performance.now() - start;
}
