/**
 * Whether sandboxes of one image share its layers: `node bench/sharing.ts [--sandboxes 100] [--vms 200] [--guests 4]`. Some guests run
 * and read every file of them; then many sandboxes are made, each with a container of the image, and paused (an emulated one takes 100 MiB
 * of the host); then more VMs with the same disks, whose CPUs are stopped before they have read any. Printed is what can be read
 * off the host: which files the VMMs have open, how many pages of them are in the page cache, what each of them read until its container
 * ran, and what lies on disk.
 */
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, readlink, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { newId, silentLog } from "../src/base/index.ts";
import { createQemu, type DiskConfig, type Vm } from "../src/hypervisor/index.ts";
import { Runtime, resolvePaths, type SandboxHandle } from "../src/sdk/index.ts";
import { runInOwnPlace } from "../test/support/own-place.ts";
import { makeImage } from "./image-fixture.ts";
import { percentile } from "./measure.ts";

const run = promisify(execFile);
const LAYERS = 5;
const LAYER_BYTES = 20_000_000;
/** For whoever else is on this host. */
const MEMORY_KEPT_MB = 1_500;
/** Creations that may fail, on a host that others load: a disk that is late for its guest, say. */
const FAILURES_MAX = 10;

const { values } = parseArgs({
  options: {
    sandboxes: { type: "string", default: "100" },
    vms: { type: "string", default: "200" },
    guests: { type: "string", default: "4" },
    dir: { type: "string" },
  },
});
const { dir } = await runInOwnPlace("b-", values.dir ?? "/var/tmp");
const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function main(): Promise<void> {
  const paths = resolvePaths({ root: join(dir, "r"), run: join(dir, "s") }, process.env, process.getuid?.() ?? 0);
  await using runtime = await Runtime.open({ paths });
  await mkdir(join(dir, "image"));
  const { archive } = await makeImage(join(dir, "image"), LAYERS, LAYER_BYTES);
  await runtime.images.import(archive, { name: "shared", kind: "docker-archive" });
  const { layers } = await runtime.images.resolve("shared");
  await rm(join(dir, "image"), { recursive: true });
  const layerBytes = layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  say(`${layers.length} layers, ${mb(layerBytes)} on disk`);
  await guests(
    runtime,
    layers.map(({ path }) => path),
  );
  await many(
    runtime,
    layers.map(({ path }) => path),
  );
  await vms(
    runtime,
    layers.map(({ path }) => path),
  );
  const { stdout } = await run("du", ["-s", "--block-size=1", paths.root]);
  say(`the root on disk: ${mb(Number.parseInt(stdout, 10))}`);
}

/** Guests that run, one more at a time, each of which reads all that is in the layers. */
async function guests(runtime: Runtime, layers: readonly string[]): Promise<void> {
  const sandboxes: SandboxHandle[] = [];
  await dropCaches();
  say(`in the page cache before anything ran: ${mb(await cachedBytes(layers))} of the layers`);
  for (let index = 0; index < Number(values.guests); index += 1) {
    const sandbox = await runtime.sandboxes.create({ image: "shared", memoryMib: 256, container: { keepAlive: true } });
    sandboxes.push(sandbox);
    const plugged = await readBytes(sandbox);
    const before = await hostCache();
    const B = "/run/belljar/busybox";
    await sandbox.exec([B, "sh", "-c", `${B} find /usr -type f | ${B} xargs ${B} cat >/dev/null`]);
    const read = (await readBytes(sandbox)) - plugged;
    const grown = (await hostCache()) - before;
    say(
      `guest ${index + 1}: VMM read ${mb(plugged)} of all its disks before, ${mb(read)} while the guest read the layers; ` +
        `page cache of the host ${grown < 0 ? "" : "+"}${mb(grown)}; of the layers ${mb(await cachedBytes(layers))}`,
    );
  }
  const used = await openFiles(
    await Promise.all(sandboxes.map(async (each) => (await each.info()).vmm?.pid ?? 0)),
    layers,
  );
  say(`${sandboxes.length} guests: each layer is one file that ${used.join(", ")} VMMs have open`);
  const { stdout } = await run("du", ["-s", "--block-size=1", join(dir, "r/sandboxes")]);
  say(`their own files on disk: ${mb(Number.parseInt(stdout, 10) / sandboxes.length)} each`);
  for (const sandbox of sandboxes) await sandbox.delete({ force: true });
}

/** Sandboxes with a container each, made one after the other and paused: what each of them reads, and what all of them take. */
async function many(runtime: Runtime, layers: readonly string[]): Promise<void> {
  const sandboxes: SandboxHandle[] = [];
  const layerBytes = (await Promise.all(layers.map(async (path) => (await stat(path)).size))).reduce(
    (a, b) => a + b,
    0,
  );
  const failures: string[] = [];
  const ownReads: number[] = [];
  const vmmReads: number[] = [];
  const startedMs = performance.now();
  const before = { cache: await hostCache(), cached: await cachedBytes(layers), disk: await diskBytes() };
  while (sandboxes.length < Number(values.sandboxes)) {
    const freeMb = (await availableBytes()) / 1e6;
    if (freeMb < MEMORY_KEPT_MB) {
      say(`stopped at ${sandboxes.length} sandboxes: the host has ${freeMb.toFixed(0)} MB left`);
      break;
    }
    const ownBefore = await ioBytes("self", "rchar");
    const wish = { image: "shared", memoryMib: 128, container: { keepAlive: true } };
    const sandbox = await runtime.sandboxes.create(wish).catch((error: unknown) => {
      failures.push(String(error));
      if (failures.length > FAILURES_MAX) throw error;
    });
    if (sandbox === undefined) continue;
    sandboxes.push(sandbox);
    ownReads.push((await ioBytes("self", "rchar")) - ownBefore);
    const { vmm } = await sandbox.info();
    vmmReads.push(await ioBytes(vmm?.pid ?? 0, "rchar"));
    await sandbox.pause();
    if (sandboxes.length % 25 === 0) say(`${sandboxes.length} sandboxes; the host has ${freeMb.toFixed(0)} MB left`);
  }
  const count = sandboxes.length;
  const pids = await Promise.all(sandboxes.map(async (each) => (await each.info()).vmm?.pid ?? 0));
  const used = await openFiles(pids, layers);
  const own = await Promise.all(pids.map(privateBytes));
  say(
    `${count} sandboxes in ${((performance.now() - startedMs) / 1000).toFixed(0)} s, all paused; ${failures.length} were not made ${failures[0] ?? ""}`,
  );
  say(`each layer is one file that ${used.join(", ")} VMMs have open; they have ${mb(layerBytes)}`);
  say(`of the layers in the page cache: ${mb(before.cached)} before, ${mb(await cachedBytes(layers))} now`);
  say(`page cache of the host +${mb((await hostCache()) - before.cache)}, in all of it`);
  say(`on disk: +${mb((await diskBytes()) - before.disk)}, ${mb(((await diskBytes()) - before.disk) / count)} each`);
  say(`read by a VMM until its container ran: ${spread(vmmReads)}; by their owner for each: ${spread(ownReads)}`);
  say(`memory of a VMM that is its own: ${spread(own.map((each) => each.guest + each.code + each.rest))}`);
  say(`of it the guest's memory: ${spread(own.map(({ guest }) => guest))}`);
  say(`translated code: ${spread(own.map(({ code }) => code))}; the rest: ${spread(own.map(({ rest }) => rest))}`);
  for (const sandbox of sandboxes) await sandbox.delete({ force: true });
}

/** VMs with the same disks whose CPUs are stopped right after the start. */
async function vms(runtime: Runtime, layers: readonly string[]): Promise<void> {
  const guestImage = await runtime.guestImages.current();
  const qemu = createQemu({ log: silentLog });
  const running: Vm[] = [];
  const before = await hostCache();
  try {
    for (let index = 0; index < Number(values.vms); index += 1) {
      const id = newId();
      await mkdir(join(dir, id), { mode: 0o700 });
      const { kernelPath, initrdPath, kernelArguments, rootPath } = guestImage;
      const disks = [rootPath, ...layers].map(
        (path, at): DiskConfig => ({ serial: at === 0 ? "root" : `l-${at}`, path, format: "raw", readOnly: true }),
      );
      const vm = await qemu.start({
        ...{ id, runDir: join(dir, id), acceleration: "tcg", memoryMib: 128, cpus: 1, disks },
        boot: { kernelPath, initrdPath, kernelArguments },
      });
      running.push(vm);
      await vm.pause();
    }
    const pids = running.map((vm) => vm.save().vmm.pid);
    const used = await openFiles(pids, layers);
    say(`${running.length} VMs: each layer is one file that ${used.join(", ")} VMMs have open`);
    say(`page cache of the host +${mb((await hostCache()) - before)}; of the layers ${mb(await cachedBytes(layers))}`);
  } finally {
    for (const vm of running) await vm.kill();
  }
}

/** What nobody shares with it: pages of the guest's memory that it has a copy of, TCG's buffer, and everything else. */
async function privateBytes(pid: number): Promise<{ guest: number; code: number; rest: number }> {
  const sums = { guest: 0, code: 0, rest: 0 };
  let kind: keyof typeof sums = "rest";
  for (const line of (await readFile(`/proc/${pid}/smaps`, "utf8")).split("\n")) {
    const [, access, name = ""] = /^[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \S+ *(.*)$/.exec(line) ?? [];
    if (access !== undefined) kind = name.endsWith("/memory") ? "guest" : access.startsWith("rwx") ? "code" : "rest";
    const kib = /^Private_(?:Clean|Dirty):\s+(\d+) kB/.exec(line)?.[1];
    if (kib !== undefined) sums[kind] += Number(kib) * 1024;
  }
  return sums;
}

async function availableBytes(): Promise<number> {
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(await readFile("/proc/meminfo", "utf8"))?.[1]) * 1024;
}

async function diskBytes(): Promise<number> {
  return Number.parseInt((await run("du", ["-s", "--block-size=1", join(dir, "r")])).stdout, 10);
}

function spread(bytes: readonly number[]): string {
  const sorted = bytes.toSorted((one, other) => one - other);
  return `${mb(percentile(sorted, 0.5))} (${mb(sorted[0] ?? 0)} to ${mb(sorted.at(-1) ?? 0)}, n = ${sorted.length})`;
}

/** For each file, how many of the processes have it open: the file, by device and inode, not its name. */
async function openFiles(pids: readonly number[], paths: readonly string[]): Promise<number[]> {
  const counts = paths.map(() => 0);
  const wanted = await Promise.all(paths.map(async (path) => identity(path)));
  for (const pid of pids) {
    const open = new Set<string>();
    for (const fd of await readdir(`/proc/${pid}/fd`)) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
      if (target.endsWith(".erofs")) open.add(await identity(`/proc/${pid}/fd/${fd}`));
    }
    for (const [index, each] of wanted.entries()) if (open.has(each)) counts[index] = (counts[index] ?? 0) + 1;
  }
  return counts;
}

async function identity(path: string): Promise<string> {
  const { dev, ino } = await stat(path);
  return `${dev}:${ino}`;
}

async function cachedBytes(paths: readonly string[]): Promise<number> {
  const { stdout } = await run("fincore", ["--bytes", "--noheadings", "--output", "RES", ...paths]);
  return stdout.split("\n").reduce((sum, line) => sum + Number(line), 0);
}

/** Whatever else the host does shows in it too. */
async function hostCache(): Promise<number> {
  const match = /^Cached:\s+(\d+) kB/m.exec(await readFile("/proc/meminfo", "utf8"));
  return Number(match?.[1]) * 1024;
}

/** What the VMM asked of files, whether they were in memory or not. */
async function readBytes(sandbox: SandboxHandle): Promise<number> {
  return await ioBytes((await sandbox.info()).vmm?.pid ?? 0, "rchar");
}

async function ioBytes(pid: number | "self", what: string): Promise<number> {
  return Number(new RegExp(`^${what}: (\\d+)`, "m").exec(await readFile(`/proc/${pid}/io`, "utf8"))?.[1]);
}

async function dropCaches(): Promise<void> {
  const { layers } = { layers: await readdir(join(dir, "r/images/layers")) };
  for (const name of layers) {
    await run("dd", [`if=${join(dir, "r/images/layers", name)}`, "iflag=nocache", "count=0", "status=none"]);
  }
}

function mb(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

await main();
