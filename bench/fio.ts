/**
 * What Belljar adds to a disk: fio in a container, on a disk that Belljar plugged, against the same program on the same file in a VM that
 * has nothing of Belljar but its kernel: QEMU is started by hand with the disk on its command line, and fio is what runs there.
 */
import { spawn } from "node:child_process";
import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../src/base/index.ts";
import type { GuestImage } from "../src/guest/index.ts";
import type { Acceleration } from "../src/hypervisor/index.ts";
import type { Runtime, SandboxHandle } from "../src/sdk/index.ts";
import type { Measurement } from "./measure.ts";

const DISK_BYTES = 256 * 1024 * 1024;
const MEMORY_MIB = 512;
const TURNS = 5;
const RUN_SECONDS = 3;
/** Not counted: an emulated CPU translates code when it first runs. */
const RAMP_SECONDS = 1;
const VM_TIMEOUT_MS = 300_000;
const NODE = "/dev/measured";

const JOBS = [
  { name: "random reads of 4 KiB", unit: "IOPS", args: ["--rw=randread", "--bs=4k"] },
  { name: "random writes of 4 KiB", unit: "IOPS", args: ["--rw=randwrite", "--bs=4k"] },
  { name: "reads of 1 MiB in a row", unit: "MB/s", args: ["--rw=read", "--bs=1M"] },
] as const;

export interface FioOptions {
  readonly runtime: Runtime;
  readonly acceleration: Acceleration;
  /** Where the file that is the disk is made. */
  readonly dir: string;
  /** Debian's fio as an archive of a root file system, made when it is not there. */
  readonly archive: string;
}

/** In turns, so that both see the same moods of the machine; they never run at once. */
export async function measureFio(options: FioOptions): Promise<Measurement[]> {
  const { runtime, dir } = options;
  await makeArchive(options.archive);
  await runtime.images.import(options.archive, { name: "fio", kind: "rootfs" });
  const [layer] = (await runtime.images.resolve("fio")).layers;
  const guestImage = await runtime.guestImages.current();
  const disk = join(dir, "fio.img");
  // With all its blocks: a hole that is filled costs the host, not the guest.
  await runTool("dd", ["if=/dev/urandom", `of=${disk}`, "bs=1M", `count=${DISK_BYTES / 2 ** 20}`, "status=none"]);
  const initrdPath = await makeInitrd(dir, guestImage);
  const values = JOBS.map(() => ({ belljar: [] as number[], direct: [] as number[] }));
  for (let turn = 0; turn < TURNS; turn += 1) {
    const belljar = await inContainer(runtime, disk);
    const direct = await inBareVm({ ...options, guestImage, initrdPath, disk, layer: layer?.path ?? "" });
    for (const [index, value] of values.entries()) {
      value.belljar.push(belljar[index] ?? Number.NaN);
      value.direct.push(direct[index] ?? Number.NaN);
    }
  }
  for (const path of [disk, initrdPath]) await rm(path);
  return JOBS.flatMap(({ name, unit }, index): Measurement[] => {
    const { belljar = [], direct = [] } = values[index] ?? {};
    const ratios = belljar.map((value, turn) => value / (direct[turn] ?? Number.NaN));
    return [
      { name: `fio in a container, ${name}`, unit, values: belljar },
      { name: `fio in a VM by hand, ${name}`, unit, values: direct },
      { name: `the container against the VM by hand, ${name}`, unit: "x", values: ratios },
    ];
  });
}

function fioArguments(node: string, args: readonly string[]): string[] {
  const times = ["--time_based", `--runtime=${RUN_SECONDS}`, `--ramp_time=${RAMP_SECONDS}`];
  return [
    "--name=job",
    `--filename=${node}`,
    "--direct=1",
    "--invalidate=0",
    "--ioengine=psync",
    ...times,
    "--minimal",
    ...args,
  ];
}

/** Of fio's terse output, version 3: operations and bytes of reads, then those of writes, in the same order. */
function figureOf(line: string, unit: string): number {
  const fields = line.split(";");
  const [read, write] = [6, 47].map((at) => ({ kibPerSecond: Number(fields[at]), iops: Number(fields[at + 1]) }));
  const value = unit === "IOPS" ? (read?.iops ?? 0) + (write?.iops ?? 0) : ((read?.kibPerSecond ?? 0) * 1024) / 1e6;
  if (fields[0] !== "3" || !(value > 0)) throw new Error(`fio wrote ${JSON.stringify(line.slice(0, 200))}`);
  return value;
}

async function inContainer(runtime: Runtime, disk: string): Promise<number[]> {
  await using sandbox: SandboxHandle = await runtime.sandboxes.create({
    image: "fio",
    memoryMib: MEMORY_MIB,
    container: { command: ["/bin/busybox", "sleep", "3600"], devices: [{ path: disk, containerPath: NODE }] },
  });
  const values: number[] = [];
  for (const { unit, args } of JOBS) {
    const { exitCode, stdout, stderr } = await sandbox.exec(["/usr/bin/fio", ...fioArguments(NODE, args)]);
    if (exitCode !== 0) throw new Error(`fio ended with ${exitCode}: ${stderr}`);
    values.push(figureOf(stdout.trim(), unit));
  }
  return values;
}

/** The guest's own first file system, with another first program. */
async function makeInitrd(dir: string, { initrdPath = "" }: GuestImage): Promise<string> {
  const tree = join(dir, "fio-initrd");
  await mkdir(tree);
  const jobs = JOBS.map(
    ({ args }) => `echo "FIO $(busybox chroot /root /usr/bin/fio ${fioArguments("$disk", args).join(" ")})"`,
  );
  const script = `#!/bin/sh
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
mount -t proc proc /proc
exec >/dev/ttyS0 2>&1
read -r modules </modules
modprobe -a $modules
while [ ! -b /dev/sda ] || [ ! -b /dev/sdb ]; do sleep 0.05; done
# Which of them is found first is not said anywhere.
disk=/dev/sda
mount -t erofs -o ro /dev/sdb /root || { disk=/dev/sdb; mount -t erofs -o ro /dev/sda /root; }
mount -o bind /dev /root/dev
mount -o bind /proc /root/proc
busybox mount -t tmpfs tmpfs /root/tmp
cd /root
${jobs.join("\n")}
poweroff -f
`;
  await writeFile(join(tree, "measure"), script, { mode: 0o755 });
  const path = join(dir, "fio-initrd.img");
  await runTool("sh", [
    "-c",
    '{ cat "$1"; cd "$2" && echo measure | cpio -o -H newc --quiet; } >"$3"',
    "sh",
    initrdPath,
    tree,
    path,
  ]);
  await rm(tree, { recursive: true });
  return path;
}

interface BareOptions extends FioOptions {
  readonly guestImage: GuestImage;
  readonly initrdPath: string;
  readonly disk: string;
  readonly layer: string;
}

async function inBareVm({ acceleration, guestImage, initrdPath, disk, layer }: BareOptions): Promise<number[]> {
  const accel = acceleration === "kvm" ? ["kvm", "host"] : ["tcg,thread=single,tb-size=128", "max,-erms"];
  const child = spawn(
    "qemu-system-x86_64",
    [
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
      ...["-machine", "q35", "-accel", accel[0] ?? "", "-cpu", accel[1] ?? "", "-m", String(MEMORY_MIB), "-smp", "1"],
      ...["-kernel", guestImage.kernelPath, "-initrd", initrdPath],
      ...["-append", [...guestImage.kernelArguments, "console=ttyS0", "rdinit=/measure"].join(" ")],
      ...["-device", "virtio-scsi-pci,id=disks"],
      ...["-drive", `if=none,id=measured,format=raw,file=${disk}`, "-device", "scsi-hd,drive=measured,lun=0"],
      ...["-drive", `if=none,id=layer,format=raw,readonly=on,file=${layer}`, "-device", "scsi-hd,drive=layer,lun=1"],
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString("latin1");
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), VM_TIMEOUT_MS);
  await new Promise((resolve, reject) => child.on("close", resolve).on("error", reject));
  clearTimeout(timer);
  const lines = [...output.matchAll(/^FIO (.*?)\r?$/gm)].map(([, line = ""]) => line);
  if (lines.length !== JOBS.length) throw new Error(`the VM by hand ended early: ${output.slice(-1_000)}`);
  return JOBS.map(({ unit }, index) => figureOf(lines[index] ?? "", unit));
}

async function makeArchive(path: string): Promise<void> {
  if (
    await stat(path).then(
      () => true,
      () => false,
    )
  )
    return;
  await mkdir(join(path, ".."), { recursive: true });
  const options = ["--variant=extract", "--include=fio,busybox-static", '--aptopt=APT::Install-Recommends "false"'];
  await runTool("mmdebstrap", [...options, "bookworm", path], { timeoutMs: 600_000 });
}
