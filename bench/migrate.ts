/**
 * The same sandbox saved by what QEMU has for it: `migrate` to a file with the guest stopped, and a new QEMU that loads the file. The VM has
 * plain memory and no template. Belljar's QEMU may start no programs, so the sandbox is first moved into one that may.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Runtime, SandboxHandle } from "../src/sdk/index.ts";
import { createFilled } from "./checkpoints.ts";
import { type Measurement, repeat } from "./measure.ts";
import { Qmp } from "./qmp.ts";

const REPEATS = 20;
const LOADS = [
  { memoryMib: 256, fillMb: 8 },
  { memoryMib: 256, fillMb: 64 },
  { memoryMib: 1024, fillMb: 512 },
] as const;
/** More than any disk or pipe can. */
const MAX_BYTES_PER_S = 2 ** 36;
const POLL_MS = 2;

type Connected = Awaited<ReturnType<typeof Runtime.connect>>;

export async function measureMigrate(runtime: Connected, dir: string): Promise<Measurement[]> {
  const found: Measurement[] = [];
  for (const load of LOADS) found.push(...(await measureOne(runtime, dir, load)));
  return found;
}

interface Load {
  readonly memoryMib: number;
  readonly fillMb: number;
}

async function measureOne(runtime: Connected, dir: string, { memoryMib, fillMb }: Load): Promise<Measurement[]> {
  await using sandbox = await createWhole(runtime, memoryMib, fillMb);
  const { vmm } = await sandbox.info();
  if (vmm === undefined) throw new Error("a running sandbox has no VMM");
  const own = join(dir, "qemu");
  await mkdir(own, { recursive: true });
  const original = (await readFile(`/proc/${vmm.pid}/cmdline`, "utf8")).split("\0").slice(0, -1);
  // Its owner holds the only connection there can be; the sandbox outlives it.
  process.kill((await runtime.daemon()).pid, "SIGKILL");
  const argv = argumentsOf(original, own);
  const place = join(own, "qmp.sock");
  const incoming = join(own, "incoming");
  const moved = start(argv, `unix:${incoming}`);
  const file = join(dir, "migrated");
  try {
    using target = await Qmp.connect(place);
    {
      using source = await Qmp.connect(qmpPath(original));
      await prepare(source);
      await source.execute("migrate", { uri: `unix:${incoming}` });
      await migrated(source);
    }
    await target.execute("cont");
    await prepare(target);
    const values = await repeat(REPEATS, async () => {
      const begun = performance.now();
      await target.execute("stop");
      await target.execute("migrate", { uri: `exec:cat > ${file}` });
      await migrated(target);
      await target.execute("cont");
      return performance.now() - begun;
    });
    const sizeMb = (await stat(file)).size / 1e6;
    await end(moved);
    const loads = await repeat(REPEATS, async () => {
      const begun = performance.now();
      const child = start(argv, `exec:cat ${file}`);
      try {
        using qmp = await Qmp.connect(place);
        while ((await statusOf(qmp)) === "inmigrate") await sleep(POLL_MS);
        await qmp.execute("cont");
        return performance.now() - begun;
      } finally {
        await end(child);
      }
    });
    const what = `QEMU's migrate, ${memoryMib} MiB guest, ${fillMb} MB written`;
    return [
      { name: `${what}: guest stopped`, unit: "ms", values },
      { name: `${what}: file`, unit: "MB", values: [sizeMb] },
      { name: `${what}: new QEMU to CPUs running`, unit: "ms", values: loads },
    ];
  } finally {
    await end(moved);
    await rm(file, { force: true });
    await rm(own, { recursive: true, force: true });
  }
}

/** One whose QEMU was started with all that it has: in a copy nothing was plugged later. */
async function createWhole(runtime: Connected, memoryMib: number, fillMb: number): Promise<SandboxHandle> {
  await using filled = await createFilled(runtime, memoryMib, fillMb, { template: false });
  const { id } = await filled.checkpoint();
  return await runtime.checkpoints.restore(id);
}

/** The same VM with sockets of its own, and without the filter that keeps QEMU from starting `cat`. */
function argumentsOf(original: readonly string[], own: string): string[] {
  const runDir = join(qmpPath(original), "..");
  const filter = original.indexOf("-sandbox");
  return original
    .filter((_, index) => index !== filter && index !== filter + 1)
    .map((word) => word.replaceAll(runDir, own));
}

function qmpPath(argv: readonly string[]): string {
  const path = argv.map((word) => /^socket,id=qmp,path=([^,]+)/.exec(word)?.[1]).find((each) => each !== undefined);
  if (path === undefined) throw new Error("QEMU was started without a control socket");
  return path;
}

function start(argv: readonly string[], uri: string): ChildProcess {
  const [program = "", ...rest] = argv;
  return spawn(program, [...rest, "-incoming", uri], { stdio: "ignore" });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

async function prepare(qmp: Qmp): Promise<void> {
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": MAX_BYTES_PER_S });
}

async function migrated(qmp: Qmp): Promise<void> {
  for (;;) {
    const status = (await qmp.execute("query-migrate")).field("status").string();
    if (status === "completed") return;
    if (status === "failed" || status === "cancelled") throw new Error(`migrate: ${status}`);
    await sleep(POLL_MS);
  }
}

async function statusOf(qmp: Qmp): Promise<string> {
  return (await qmp.execute("query-status")).field("status").string();
}
