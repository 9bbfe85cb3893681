/** `belljar top`: what the sandboxes cost their host, the busiest first. `stats` says what containers use in them. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { Runtime, SandboxInfo, SandboxStats } from "../../sdk/index.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { beginRound, measureOften } from "../live.ts";
import { formatBytes } from "../output.ts";
import { SignalRelay, untilInterrupted } from "../signals.ts";
import { whilePrinting } from "../standard-output.ts";

interface TopOptions extends CommonOptions {
  /** False with `--no-stream`. */
  readonly stream: boolean;
}

interface Row {
  readonly info: SandboxInfo;
  /** Of one that runs. */
  readonly stats: SandboxStats | undefined;
  readonly atMs: number;
}

export function addTopCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("top")
    .summary("show what sandboxes cost their host, the busiest first")
    .description("On a terminal again and again, until Ctrl-C; elsewhere once.")
    .argument("[sandbox...]", "by id, the beginning of an id, or name; all that have a VM when left out")
    .option("--no-stream", "once, on a terminal too");
  withCommonOptions(command).action(async (names: string[], options: TopOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    const forever = options.stream && process.stdout.isTTY;
    const signal = whilePrinting(process.stdout, relay.signal);
    const rounds = measureOften(() => measure(runtime, names), forever, signal);
    for await (const [before, now] of untilInterrupted(rounds, signal, setStatus)) {
      if (forever) beginRound(process.stdout, context.output.json);
      print(context, before, now);
    }
  });
}

async function measure(runtime: Runtime, names: readonly string[]): Promise<readonly Row[]> {
  const infos =
    names.length === 0
      ? (await runtime.sandboxes.list()).filter(({ vmm }) => vmm !== undefined)
      : await Promise.all(names.map(async (name) => (await runtime.sandboxes.get(name)).info()));
  return await Promise.all(
    infos.map(async (info) => ({ info, stats: await statsOf(runtime, info), atMs: performance.now() })),
  );
}

/** One that has just ended, or stands still, has none; that is no reason to tell nothing of the others. */
async function statsOf(runtime: Runtime, { id, state }: SandboxInfo): Promise<SandboxStats | undefined> {
  if (state !== "running") return undefined;
  try {
    return await (await runtime.sandboxes.get(id)).stats();
  } catch (error) {
    if (BelljarError.from(error).reason === "CANCELLED") throw error;
    return undefined;
  }
}

function print({ output }: Context, before: readonly Row[], now: readonly Row[]): void {
  const rows = now.map((row) => ({ ...row, cpuPercent: shareOf(row, before) }));
  rows.sort((one, other) => (other.cpuPercent ?? -1) - (one.cpuPercent ?? -1));
  output.table(
    ["ID", "NAME", "STATE", "CPU", "RESIDENT", "GUEST USES", "PROCESSES", "CONTAINERS"],
    rows.map(({ info, stats, cpuPercent }) => [
      info.id,
      info.name,
      info.state,
      cpuPercent === undefined ? "-" : `${cpuPercent.toFixed(1)} %`,
      stats === undefined ? "-" : formatBytes(Number(stats.host.residentBytes)),
      stats === undefined ? "-" : `${formatBytes(usedBytes(stats))} / ${formatBytes(info.memoryMib * 2 ** 20)}`,
      stats === undefined ? "-" : String(stats.guest.processes),
      String(info.containers.length),
    ]),
    rows.map(({ info: { id, name, state, memoryMib, cpus, containers }, stats, cpuPercent }) => ({
      id,
      name,
      state,
      cpuPercent,
      memoryBytes: memoryMib * 2 ** 20,
      cpus,
      host: stats?.host,
      guest: stats?.guest,
      containers: containers.length,
    })),
  );
}

/** Of one CPU of the host. */
function shareOf({ info, stats, atMs }: Row, before: readonly Row[]): number | undefined {
  const earlier = before.find((row) => row.info.id === info.id);
  if (stats === undefined || earlier?.stats === undefined) return undefined;
  return (Number(stats.host.cpuUs - earlier.stats.host.cpuUs) / 1000 / (atMs - earlier.atMs)) * 100;
}

function usedBytes({ guest }: SandboxStats): number {
  return Number(guest.memoryTotalBytes - guest.memoryAvailableBytes);
}
