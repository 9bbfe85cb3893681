/** From nothing to the output of a first command: a sandbox that boots, one that is a copy of a template, one of a warm sandbox. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createLog } from "../src/base/index.ts";
import { Runtime, resolvePaths, type SandboxCreateConfig, type SandboxHandle } from "../src/sdk/index.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
/** Sandboxes with each kind of network, and as many without one beside them. Root has a bridge unless told otherwise. */
const POOLED = [
  { network: "bridge", count: 100 },
  { network: "user", count: 20 },
] as const;
const REFILL_MAX_MS = 60_000;
/** For what the making of the one that waits has left to do. */
const SETTLE_MS = 1000;
const REFILL_POLL_MS = 50;

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
  let ready = 0;
  const write = (line: string): void => {
    if (/ a \S.* waits for a sandbox/.test(line)) ready += 1;
  };
  const log = createLog({ level: "info", json: false, write });
  await using runtime = await Runtime.open({ paths, log, poolSize: 1 });
  const measurements: Measurement[] = [];
  // VMs wait for two kinds of sandboxes at most.
  for (const { network, count } of POOLED) {
    const modes = ["none", network] as const;
    const values = new Map<string, number[]>(modes.map((mode) => [mode, []]));
    const create = async (mode: (typeof modes)[number]): Promise<number> => {
      const before = ready;
      const tookMs = await untilOutput(() =>
        runtime.sandboxes.create({ image: "busybox", container: { keepAlive: true }, network: { mode } }),
      );
      // The next one waits before anything else is measured.
      const untilMs = performance.now() + REFILL_MAX_MS;
      while (ready === before && performance.now() < untilMs) await sleep(REFILL_POLL_MS);
      if (ready === before) throw new Error(`no VM waits for a sandbox with network ${mode}`);
      await sleep(SETTLE_MS);
      return tookMs;
    };
    // The template, and whatever is only done once.
    for (const mode of modes) await create(mode);
    for (let turn = 0; turn < count; turn += 1) {
      for (const mode of modes) values.get(mode)?.push(await create(mode));
    }
    for (const [mode, each] of values) {
      const beside = mode === network ? "" : `, beside ${network}`;
      const name = `create with network ${mode} from a VM that waits to a first command's output${beside}`;
      measurements.push({ name, unit: "ms", values: each });
    }
  }
  return measurements;
}

async function untilOutput(make: () => Promise<SandboxHandle>): Promise<number> {
  const start = performance.now();
  await using sandbox = await make();
  const { stdout } = await sandbox.exec(["echo", "hello"]);
  if (stdout !== "hello\n") throw new Error(`a first command wrote ${stdout}`);
  return performance.now() - start;
}
