/** `belljar stats`: what running containers use, once or every second. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { ContainerStats, Runtime } from "../../sdk/index.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { beginRound, measureOften } from "../live.ts";
import { formatBytes } from "../output.ts";
import { SignalRelay, untilInterrupted } from "../signals.ts";
import { whilePrinting } from "../standard-output.ts";

interface StatsOptions extends CommonOptions {
  /** False with `--no-stream`. */
  readonly stream: boolean;
}

interface Row {
  readonly sandbox: string;
  readonly name: string;
  readonly container: string;
  readonly stats: ContainerStats;
  readonly atMs: number;
}

export function addStatsCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("stats")
    .summary("show what running containers use")
    .argument("[sandbox...]", "by id, the beginning of an id, or name; all that run when left out")
    .option("--no-stream", "once, not every second");
  withCommonOptions(command).action(async (names: string[], options: StatsOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    const signal = whilePrinting(process.stdout, relay.signal);
    const rounds = measureOften(() => measure(runtime, names), options.stream, signal);
    for await (const [before, now] of untilInterrupted(rounds, signal, setStatus)) {
      if (options.stream) beginRound(process.stdout, context.output.json);
      print(context, before, now);
    }
  });
}

async function measure(runtime: Runtime, names: readonly string[]): Promise<readonly Row[]> {
  const infos =
    names.length === 0
      ? (await runtime.sandboxes.list()).filter(({ state }) => state === "running")
      : await Promise.all(names.map(async (name) => (await runtime.sandboxes.get(name)).info()));
  const rows = infos.map(async ({ id, name }): Promise<Row[]> => {
    const containers = await containersOf(runtime, id, names.length > 0);
    const atMs = performance.now();
    return Object.entries(containers).map(([container, stats]) => ({ sandbox: id, name, container, stats, atMs }));
  });
  return (await Promise.all(rows)).flat();
}

/** One that has just ended is no reason to tell nothing of the others, unless somebody has named it. */
async function containersOf(
  runtime: Runtime,
  id: string,
  isNamed: boolean,
): Promise<Readonly<Record<string, ContainerStats>>> {
  try {
    return (await (await runtime.sandboxes.get(id)).stats()).containers;
  } catch (error) {
    if (isNamed || BelljarError.from(error).reason === "CANCELLED") throw error;
    return {};
  }
}

function print({ output }: Context, before: readonly Row[], now: readonly Row[]): void {
  const shares = now.map((row) => {
    const earlier = before.find(({ container }) => container === row.container);
    if (earlier === undefined) return 0;
    return (Number(row.stats.cpu.usageUs - earlier.stats.cpu.usageUs) / 1000 / (row.atMs - earlier.atMs)) * 100;
  });
  output.table(
    ["SANDBOX", "NAME", "CONTAINER", "CPU", "MEMORY / LIMIT", "PIDS", "BLOCK READ / WRITTEN"],
    now.map(({ sandbox, name, container, stats }, index) => [
      sandbox,
      name,
      container,
      `${(shares[index] ?? 0).toFixed(1)} %`,
      `${bytes(stats.memory.usageBytes)} / ${stats.memory.limitBytes === undefined ? "-" : bytes(stats.memory.limitBytes)}`,
      String(stats.pids.current),
      `${bytes(sum(stats, "readBytes"))} / ${bytes(sum(stats, "writtenBytes"))}`,
    ]),
    now.map(({ sandbox, name, container, stats }, index) => ({
      sandbox,
      name,
      container,
      cpuPercent: shares[index],
      ...stats,
    })),
  );
}

function sum(stats: ContainerStats, field: "readBytes" | "writtenBytes"): bigint {
  return stats.blockIo.reduce((total, device) => total + device[field], 0n);
}

function bytes(count: bigint): string {
  return formatBytes(Number(count));
}
