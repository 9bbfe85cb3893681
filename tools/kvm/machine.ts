/**
 * Runs a command where KVM works, on a host where it need not: in an emulated machine with AMD's SVM, whose root is this
 * host's root, read-only, under a tmpfs. Real kvm_amd, a real /dev/kvm, real `-accel kvm`. It answers "does it work?", never
 * "how fast?": everything in it is several times slower than elsewhere. What the command writes is gone afterwards.
 *
 * Invariant: whatever happens, both processes are ended and the temporary directory is gone when the promise settles.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { cachedKernel, moduleFiles } from "./kernel.ts";

const run = promisify(execFile);

export interface KvmRun {
  /** Program and arguments; paths are this host's. */
  readonly command: readonly string[];
  readonly workingDirectory: string;
  readonly timeoutMs: number;
  /** Where the machine's kernel is kept. */
  readonly cacheDir: string;
  readonly memoryMib?: number;
  readonly onOutput?: (text: string) => void;
  readonly signal?: AbortSignal;
}

export interface KvmResult {
  /** Undefined when the machine ended, or time ran out, before the command did. */
  readonly exitCode: number | undefined;
  readonly output: string;
}

const MODULES = [
  "virtio_pci",
  "virtiofs",
  "kvm-amd",
  "overlay",
  "tun",
  "loop",
  "erofs",
  "ext4",
  "vfio-pci",
  "vfio_iommu_type1",
];
const VIRTIOFSD = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

export async function runUnderKvm(options: KvmRun): Promise<KvmResult> {
  const kernel = await cachedKernel(options.cacheDir);
  const dir = await mkdtemp(join(tmpdir(), "belljar-kvm-"));
  const children: ChildProcess[] = [];
  try {
    const initrdPath = await buildInitrd(dir, await moduleFiles(kernel, MODULES), script(options));
    const socket = join(dir, "fs.sock");
    const virtiofsd = await firstPresent(VIRTIOFSD);
    children.push(
      spawn(virtiofsd, [`--socket-path=${socket}`, "-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"], {
        stdio: "ignore",
      }),
    );
    await untilPresent(socket);
    const statusPath = join(dir, "status");
    const machine = spawn(
      "qemu-system-x86_64",
      machineArguments({ kernelPath: kernel.imagePath, initrdPath, socket, statusPath, memoryMib: options.memoryMib }),
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    children.push(machine);
    let output = "";
    const take = (chunk: Buffer): void => {
      const text = chunk.toString("utf8").replaceAll("\r\n", "\n");
      output = (output + text).slice(-OUTPUT_MAX);
      options.onOutput?.(text);
    };
    machine.stdout.on("data", take);
    machine.stderr.on("data", take);
    await ended(machine, options.timeoutMs, options.signal);
    const status = /^status (\d+)/m.exec(await readFile(statusPath, "utf8").catch(() => ""))?.[1];
    return { exitCode: status === undefined ? undefined : Number(status), output };
  } finally {
    await Promise.all(children.map((child) => end(child)));
    // virtiofsd leaves it, whoever ends it.
    await rm(join("/run/virtiofsd", `${join(dir, "fs.sock").replaceAll("/", ".")}.pid`), { force: true });
    await rm(dir, { recursive: true, force: true });
  }
}

/** Characters of the output that are kept, its end. */
const OUTPUT_MAX = 4 * 1024 * 1024;

interface MachineConfig {
  readonly kernelPath: string;
  readonly initrdPath: string;
  readonly socket: string;
  readonly statusPath: string;
  readonly memoryMib: number | undefined;
}

function machineArguments(config: MachineConfig): string[] {
  const memory = `${config.memoryMib ?? 4096}M`;
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", "q35,memory-backend=ram,kernel-irqchip=split", "-device", "intel-iommu,intremap=on"],
    // One CPU: of several, each with a thread, Node is ended now and then; in one thread they wait for one another's turn to end, and
    // guests in the machine run out of time. docs/decisions/tcg-threads.md
    ...["-accel", "tcg", "-cpu", "max,+svm,+npt"],
    ...["-m", memory, "-smp", "1"],
    // virtiofs needs memory that both processes can see.
    ...["-object", `memory-backend-memfd,id=ram,size=${memory},share=on`],
    ...["-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out"],
    ...["-chardev", `file,id=status,path=${config.statusPath}`, "-serial", "chardev:status"],
    ...["-chardev", `socket,id=fs,path=${config.socket}`, "-device", "vhost-user-fs-pci,chardev=fs,tag=host"],
    ...["-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"],
    ...assignableDevices(),
    ...["-kernel", config.kernelPath, "-initrd", config.initrdPath],
    // A timer that goes off again and again: with one that is set for the next time only, as it is usual, the machine was seen to stand still
    // for good twice in a row, at no load. An interrupt had been lost, very likely, after which none came.
    // The timer is wired as it should be; the check of it, whose interrupts go through the IOMMU, fails under load.
    ...[
      "-append",
      "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check nohz=off highres=off intel_iommu=on iommu=pt",
    ],
  ];
}

/**
 * Three disks to be handed on to guests: one with an IOMMU group of its own, and two functions of one device, which
 * share theirs. They are at 01:00.0, 02:00.0 and 02:00.1, hold zeros, and forget what is written.
 */
function assignableDevices(): string[] {
  const device = (properties: Record<string, unknown>): string[] => ["-device", JSON.stringify(properties)];
  const disk = (port: string, pciFunction: number, isOneOfSeveral: boolean): string[] => {
    const id = `${port}-${pciFunction}`;
    const place = { bus: port, addr: `0.${pciFunction}`, multifunction: isOneOfSeveral };
    const node = { driver: "null-co", "node-name": id, size: ASSIGNABLE_BYTES, "read-zeroes": true };
    return ["-blockdev", JSON.stringify(node), ...device({ driver: "nvme", serial: id, drive: id, ...place })];
  };
  return [
    ...device({ driver: "pcie-root-port", id: "alone", chassis: 1, slot: 1 }),
    ...device({ driver: "pcie-root-port", id: "pair", chassis: 2, slot: 2 }),
    ...disk("alone", 0, false),
    ...disk("pair", 0, true),
    ...disk("pair", 1, true),
  ];
}

const ASSIGNABLE_BYTES = 16 * 1024 * 1024;

function script(options: KvmRun): string {
  const quoted = options.command.map(shellQuote).join(" ");
  return `cd ${shellQuote(options.workingDirectory)} && exec ${quoted}\n`;
}

function shellQuote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

async function buildInitrd(dir: string, modules: readonly string[], command: string): Promise<string> {
  const root = join(dir, "root");
  for (const name of ["modules", "dev", "proc", "sys", "host", "writable"]) {
    await mkdir(join(root, name), { recursive: true });
  }
  await copyFile(await firstPresent(["/bin/busybox", "/usr/bin/busybox"]), join(root, "busybox"));
  await copyFile(join(import.meta.dirname, "init.sh"), join(root, "init"));
  await chmod(join(root, "init"), 0o755);
  await writeFile(join(root, "command"), command);
  for (const [index, file] of modules.entries()) {
    // The shell loads them in the order of their names.
    await copyFile(file, join(root, "modules", `${String(index).padStart(3, "0")}-${basename(file)}`));
  }
  const initrdPath = join(dir, "initrd");
  await run("sh", ["-c", 'cd "$1" && find . | cpio -o -H newc --quiet >"$2"', "sh", root, initrdPath]);
  return initrdPath;
}

async function firstPresent(paths: readonly string[]): Promise<string> {
  for (const path of paths) {
    if (await present(path)) return path;
  }
  throw new Error(`none of ${paths.join(", ")} is installed`);
}

async function present(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function untilPresent(path: string): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await present(path))) {
    if (performance.now() > end) throw new Error(`${path} did not appear within 10 s`);
    await sleep(20);
  }
}

/** Waits for the machine's end, the time limit or the caller's signal, whichever is first. */
async function ended(child: ChildProcess, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.once("close", () => resolve());
  child.once("error", reject);
  const timer = setTimeout(() => resolve(), timeoutMs);
  signal?.addEventListener("abort", () => resolve(), { once: true });
  if (signal?.aborted === true) resolve();
  await promise.finally(() => clearTimeout(timer));
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}
