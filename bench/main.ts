/**
 * `npm run bench [-- --only imports,fio]`: the figures of SPEC.md, measured in one run on this machine. Prints a table, writes JSON and an SVG plot to
 * bench/out/. Warm page cache; which acceleration was used is stated with the result.
 */
import { execFile } from "node:child_process";
import { mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { cpus, release } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import type { Acceleration } from "../src/hypervisor/index.ts";
import { Runtime, resolvePaths, type SandboxHandle } from "../src/sdk/index.ts";
import { runInOwnPlace } from "../test/support/own-place.ts";
import { type Boot, bootOnce, copyOnce } from "./boot.ts";
import { measureCheckpoints } from "./checkpoints.ts";
import { measureFio } from "./fio.ts";
import { measureImports } from "./imports.ts";
import { type Measurement, repeat, summarise, time } from "./measure.ts";
import { measureNetwork } from "./network.ts";
import { drawBars } from "./plot.ts";

const run = promisify(execFile);
const repository = join(import.meta.dirname, "..");
const outDir = join(import.meta.dirname, "out");

const { values } = parseArgs({ options: { only: { type: "string" } } });

const BOOTS = 10;
const RUNS = 10;
const EXECS = 30;
const STREAMS = 5;
const HOTPLUGS = 30;
const RECOVERIES = 10;
const STREAM_MB = 32;

async function main(): Promise<void> {
  const { dir: state } = await runInOwnPlace("bench-");
  const environment = { ...process.env, BELLJAR_ROOT: join(state, "root"), BELLJAR_RUN: join(state, "run") };
  const cli = async (...args: string[]): Promise<void> => {
    await run(join(repository, "bin/belljar"), args, { env: environment });
  };
  try {
    const paths = resolvePaths({}, environment, process.getuid?.() ?? 0);
    await using runtime = await Runtime.connect({ paths });
    const acceleration = await findAcceleration(runtime);
    const parts: Readonly<Record<string, () => Promise<Measurement[]>>> = {
      boots: () => measureBoots(runtime, state, acceleration),
      commands: () => measureCommands(cli),
      sandbox: () => measureSandbox(runtime),
      hotplug: async () => [await measureHotplug(runtime, state)],
      checkpoints: () => measureCheckpoints(runtime),
      recovery: async () => [await measureRecovery(runtime)],
      imports: () => measureImports(state),
      fio: () => measureFio({ runtime, acceleration, dir: state, archive: join(repository, ".cache/bench/fio.tar") }),
    };
    const measurements: Measurement[] = [];
    // By name only: they need programs that nothing else of the project does.
    const special: typeof parts = { network: () => measureNetwork({ runtime, cli, dir: state }) };
    const chosen = values.only?.split(",") ?? Object.keys(parts);
    for (const name of chosen) measurements.push(...((await (parts[name] ?? special[name])?.()) ?? []));
    await report(measurements, acceleration);
  } finally {
    await cli("daemon", "stop").catch(() => {});
  }
}

/** From the call until the guest has the node, through the daemon: checked, written down, plugged, found. */
async function measureHotplug(runtime: Runtime, dir: string): Promise<Measurement> {
  await using sandbox = await createSleeper(runtime);
  const path = join(dir, "hotplug.img");
  await writeFile(path, "");
  await truncate(path, 1024 * 1024);
  const plugAndUnplug = async (): Promise<number> => {
    const start = performance.now();
    const { id } = await sandbox.devices.add({ kind: "block", path });
    const tookMs = performance.now() - start;
    await sandbox.devices.remove(id);
    return tookMs;
  };
  // The first one runs code in the guest that nobody has run before.
  await plugAndUnplug();
  return { name: "disk hotplug to node in the guest", unit: "ms", values: await repeat(HOTPLUGS, plugAndUnplug) };
}

async function findAcceleration(runtime: Runtime): Promise<Acceleration> {
  await using sandbox = await createSleeper(runtime);
  const { vmm } = await sandbox.info();
  if (vmm === undefined) throw new Error("a running sandbox has no VMM");
  return vmm.acceleration;
}

async function measureBoots(runtime: Runtime, dir: string, acceleration: Acceleration): Promise<Measurement[]> {
  const guestImage = await runtime.guestImages.current();
  const boots: Boot[] = [];
  const copies: Boot[] = [];
  const cold: number[] = [];
  const fromTemplate: number[] = [];
  const create = async (into: number[], template: boolean): Promise<void> => {
    const start = performance.now();
    await using _sandbox = await createSleeper(runtime, template);
    into.push(performance.now() - start);
  };
  // Made beforehand: both templates are there when the clock runs.
  await copyOnce({ guestImage, dir, acceleration });
  // In turns, so that all see the same moods of the machine.
  for (let i = 0; i < BOOTS; i += 1) {
    boots.push(await bootOnce({ guestImage, dir, acceleration }));
    copies.push(await copyOnce({ guestImage, dir, acceleration }));
    await create(cold, false);
    await create(fromTemplate, true);
  }
  return [
    { name: "cold boot: VMM start to agent ready", unit: "ms", values: boots.map((boot) => boot.readyMs) },
    { name: "memory used by the idle guest", unit: "MB", values: boots.map((boot) => boot.usedMb) },
    { name: "from a template: VMM start to agent ready", unit: "ms", values: copies.map((boot) => boot.readyMs) },
    { name: "create: cold boot to container running", unit: "ms", values: cold },
    { name: "create: from a template to container running", unit: "ms", values: fromTemplate },
  ];
}

async function measureCommands(cli: (...args: string[]) => Promise<void>): Promise<Measurement[]> {
  return [
    {
      name: "belljar run --rm busybox true, whole process",
      unit: "ms",
      values: await repeat(RUNS, () => time(() => cli("run", "--rm", "busybox", "true"))),
    },
    { name: "belljar ps, whole process", unit: "ms", values: await repeat(RUNS, () => time(() => cli("ps"))) },
  ];
}

async function measureSandbox(runtime: Runtime): Promise<Measurement[]> {
  await using sandbox = await createSleeper(runtime);
  const pauses = await repeat(EXECS, () =>
    time(async () => {
      await sandbox.pause();
      await sandbox.resume();
    }),
  );
  return [
    {
      name: "exec true through the daemon, round trip",
      unit: "ms",
      values: await repeat(EXECS, () => time(() => execTrue(sandbox))),
    },
    { name: "pause and resume", unit: "ms", values: pauses },
    {
      name: "stdout of one process",
      unit: "MB/s",
      values: await repeat(STREAMS, () => stdoutThroughput(sandbox)),
    },
  ];
}

/** From SIGKILL of the daemon until a new one has the sandbox again and a command has run in it. */
async function measureRecovery(runtime: Awaited<ReturnType<typeof Runtime.connect>>): Promise<Measurement> {
  await using sandbox = await createSleeper(runtime);
  const values = await repeat(RECOVERIES, async () => {
    const { pid } = await runtime.daemon();
    return await time(async () => {
      process.kill(pid, "SIGKILL");
      await sandbox.info();
      await execTrue(sandbox);
    });
  });
  return { name: "SIGKILL of the daemon to the next exec's answer", unit: "ms", values };
}

function createSleeper(runtime: Runtime, template = true): Promise<SandboxHandle> {
  return runtime.sandboxes.create({ image: "busybox", template, container: { command: ["sleep", "3600"] } });
}

async function execTrue(sandbox: SandboxHandle): Promise<void> {
  const { exitCode } = await sandbox.exec(["true"]);
  if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`);
}

async function stdoutThroughput(sandbox: SandboxHandle): Promise<number> {
  const bytes = STREAM_MB * 1_000_000;
  const start = performance.now();
  const child = await sandbox.spawn(["head", "-c", String(bytes), "/dev/zero"]);
  let received = 0;
  for await (const chunk of child.stdout) received += chunk.length;
  await child.status;
  if (received !== bytes) throw new Error(`received ${received} bytes of ${bytes}`);
  return STREAM_MB / ((performance.now() - start) / 1000);
}

async function report(measurements: readonly Measurement[], acceleration: string): Promise<void> {
  const summaries = measurements.map(summarise);
  const host = {
    acceleration,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    kernel: release(),
    node: process.version,
    commit: (await run("git", ["-C", repository, "rev-parse", "--short", "HEAD"])).stdout.trim(),
    package: JSON.parse(await readFile(join(repository, "package.json"), "utf8")).version,
    measuredAt: new Date().toISOString(),
  };
  await mkdir(outDir, { recursive: true });
  await writeFile(join(outDir, "bench.json"), `${JSON.stringify({ host, summaries, measurements }, undefined, 2)}\n`);
  const title = `Belljar ${host.package} under ${acceleration}, ${host.cores} cores`;
  await writeFile(join(outDir, "bench.svg"), drawBars(title, summaries));
  const width = Math.max(...summaries.map((each) => each.name.length));
  process.stdout.write(`${title}; ${host.cpu}, Linux ${host.kernel}\n`);
  process.stdout.write(`${"".padEnd(width)}   median      p95      min      max    n\n`);
  for (const each of summaries) {
    const cells = [each.median, each.p95, each.min, each.max].map((value) => String(value).padStart(9)).join("");
    process.stdout.write(`${each.name.padEnd(width)}${cells} ${String(each.n).padStart(4)}  ${each.unit}\n`);
  }
  process.stdout.write(`Written: bench/out/bench.json, bench/out/bench.svg\n`);
}

await main();
