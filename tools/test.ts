/** The stages of `npm test`, each with node's own test runner; every stage runs, whatever the one before it found. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { networkObjects } from "../test/support/leaks.ts";
import { makeOwnPlace } from "../test/support/own-place.ts";
import { check } from "./check.ts";
import { repository, runCommand } from "./command.ts";

const PRELOAD = join(repository, "test/support/preload.ts");
const UNIT_FILES = [
  "src/**/*.test.ts",
  "agent/**/*.test.ts",
  "fuzz/**/*.test.ts",
  "tools/**/*.test.ts",
  "test/{support,fault}/**/*.test.ts",
];
const VM_FILES = ["test/vm/**/*.test.ts"];
/** Of a test, and of a whole file. */
const UNIT_TIMEOUT_MS = 5 * 60_000;
const VM_TIMEOUT_MS = 15 * 60_000;
/** Unit tests wait a good part of their time, for a clock or a disk. */
const UNIT_FILES_AT_ONCE = 4;
/** Emulated guests: two take both CPUs, and three take as long for all of the files. */
const VM_FILES_AT_ONCE = 2;
const KVM_TIMEOUT_S = 1_800;

export async function test(): Promise<number> {
  const stages: readonly (readonly [string, () => Promise<number>])[] = [
    ["check", check],
    ["unit tests", () => testUnit([])],
    ["KVM", testKvm],
    ["VM tests", () => testVm([])],
  ];
  const failed: string[] = [];
  for (const [name, run] of stages) {
    const started = performance.now();
    process.stdout.write(`\nbelljar: ${name}\n`);
    if ((await run()) !== 0) failed.push(name);
    process.stdout.write(`belljar: ${name} took ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
  }
  process.stdout.write(
    failed.length === 0 ? "\nbelljar: all stages passed\n" : `\nbelljar: failed: ${failed.join(", ")}\n`,
  );
  return failed.length === 0 ? 0 : 1;
}

/** `patterns` choose test files; all of the stage's unless given. */
export async function testUnit(patterns: readonly string[]): Promise<number> {
  return await runFiles(patterns.length === 0 ? UNIT_FILES : patterns, UNIT_TIMEOUT_MS, UNIT_FILES_AT_ONCE);
}

export async function testVm(patterns: readonly string[]): Promise<number> {
  return await runFiles(patterns.length === 0 ? VM_FILES : patterns, VM_TIMEOUT_MS, VM_FILES_AT_ONCE);
}

/** The smoke of everything that touches the VM under real KVM, inside an emulated machine that has it. */
export async function testKvm(): Promise<number> {
  // The emulated machine and all that is in it are gone afterwards.
  const node = ["env", "BELLJAR_TEMPLATES=/run/bj-templates", process.execPath];
  const command = [...node, "--test", "--test-force-exit", `--import=${PRELOAD}`, "test/kvm/smoke.test.ts"];
  return (await runCommand(process.execPath, ["tools/kvm/main.ts", String(KVM_TIMEOUT_S), ...command])).status;
}

async function runFiles(patterns: readonly string[], timeoutMs: number, atOnce: number): Promise<number> {
  const before = await hostObjects();
  await using place = await makeOwnPlace("bj-");
  // Made by the first test that needs one, and used by all.
  await using templates = await makeOwnPlace("bj-templates-");
  const { status } = await runCommand(
    process.execPath,
    [
      "--test",
      // Not `--test-force-exit`: beside other work it loses what the last tests of a file have to say, and their number. A file that holds
      // something open does not end, and fails when its time is over.
      `--test-concurrency=${atOnce}`,
      `--test-timeout=${timeoutMs}`,
      `--import=${PRELOAD}`,
      ...patterns,
    ],
    { env: { TMPDIR: place.dir, BELLJAR_TEMPLATES: templates.dir } },
  );
  const leaks = (await readdir(place.dir)).map((name) => `file ${join(place.dir, name)}`);
  leaks.push(...[...(await hostObjects())].filter((name) => !before.has(name)));
  if (leaks.length === 0) return status;
  process.stdout.write(`the tests left behind:\n${leaks.map((leak) => `  ${leak}\n`).join("")}`);
  return status === 0 ? 1 : status;
}

/** What belongs to no process and no directory: it is compared over the whole stage. */
async function hostObjects(): Promise<Set<string>> {
  const objects = await networkObjects();
  for (const line of (await readFile("/proc/self/mountinfo", "utf8")).split("\n")) {
    const place = line.split(" ")[4];
    // `ip netns` makes it once, for all namespaces that will ever be.
    if (place !== undefined && place !== "/run/netns") objects.add(`mount ${place}`);
  }
  for (const name of await readdir("/sys/block")) {
    const backing = await readFile(`/sys/block/${name}/loop/backing_file`, "utf8").catch(() => undefined);
    if (backing !== undefined) objects.add(`loop device ${name}: ${backing.trim()}`);
  }
  return objects;
}
