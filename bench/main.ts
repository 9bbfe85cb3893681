/**
 * `npm run bench [-- --only imports,fio] [--add]`: the figures of SPEC.md, measured in one run on this machine. Prints a table, writes JSON and
 * an SVG plot to bench/out/; with `--add` beside what earlier runs of the same commit have found. Warm page cache; which acceleration was used
 * is stated with the result.
 */
import { execFile } from "node:child_process";
import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import type { Acceleration } from "../src/hypervisor/index.ts";
import { Runtime, resolvePaths, type SandboxHandle } from "../src/sdk/index.ts";
import { runInOwnPlace } from "../test/support/own-place.ts";
import { type Boot, bootOnce, copyOnce } from "./boot.ts";
import { measureCheckpoints } from "./checkpoints.ts";
import { measureForks, measureRestores } from "./copies.ts";
import { measureCreates, measurePool } from "./creates.ts";
import { measureApi, measureDaemonMemory, measureList, measureStdout, measureWake } from "./daemon.ts";
import { measureFio } from "./fio.ts";
import { measureIdle } from "./idle.ts";
import { measureImports } from "./imports.ts";
import { measureLoad } from "./load.ts";
import { checkFigures, type Measurement, repeat, time } from "./measure.ts";
import { measureMigrate } from "./migrate.ts";
import { measureNetwork } from "./network.ts";
import { print, save } from "./report.ts";
import { measureRunsc } from "./runsc.ts";
import { createSleeper, outputMbPerSecond } from "./sleeper.ts";
import { measureStandbys } from "./standbys.ts";

const run = promisify(execFile);
const repository = join(import.meta.dirname, "..");

const { values } = parseArgs({ options: { only: { type: "string" }, add: { type: "boolean", default: false } } });

const BOOTS = 10;
const RUNS = 10;
const EXECS = 30;
const STREAMS = 5;
const HOTPLUGS = 30;
const RECOVERIES = 10;
const STREAM_BYTES = 32_000_000;

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
      checkpoints: () => measureCheckpoints(runtime, "small"),
      "large-checkpoints": () => measureCheckpoints(runtime, "large"),
      restores: () => measureRestores(runtime),
      load: () => measureLoad(state),
      standbys: () => measureStandbys(state),
      forks: () => measureForks(runtime),
      creates: () => measureCreates(runtime),
      pool: () => measurePool(state),
      migrate: () => measureMigrate(runtime, state),
      runsc: () => measureRunsc({ dir: state, cache: join(repository, ".cache/bench/runsc") }),
      recovery: async () => [await measureRecovery(runtime)],
      api: () => measureApi(runtime),
      stdout: () => measureStdout(runtime),
      list: () => measureList(state),
      "daemon-memory": () => measureDaemonMemory(state),
      wake: () => measureWake(runtime),
      idle: () => measureIdle(state),
      imports: () => measureImports(state),
      fio: () => measureFio({ runtime, acceleration, dir: state, archive: join(repository, ".cache/bench/fio.tar") }),
    };
    const measurements: Measurement[] = [];
    // By name only: they need programs that nothing else of the project does.
    const special: typeof parts = { network: () => measureNetwork({ runtime, cli, dir: state }) };
    const chosen = values.only?.split(",") ?? Object.keys(parts);
    for (const name of chosen) {
      // One that fails leaves the others their figures.
      try {
        const found = (await (parts[name] ?? special[name])?.()) ?? [];
        for (const each of found) checkFigures(each);
        measurements.push(...found);
      } catch (error) {
        process.stdout.write(
          `${name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
        );
        process.exitCode = 1;
      }
      await save(measurements, { acceleration, repository, add: values.add });
      process.stdout.write(`${name}: ${(process.uptime() / 60).toFixed(1)} min\n`);
    }
    print(await save(measurements, { acceleration, repository, add: values.add }));
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
      values: await repeat(STREAMS, () => outputMbPerSecond(sandbox, STREAM_BYTES)),
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

async function execTrue(sandbox: SandboxHandle): Promise<void> {
  const { exitCode } = await sandbox.exec(["true"]);
  if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`);
}

await main();
