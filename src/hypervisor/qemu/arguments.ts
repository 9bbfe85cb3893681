/**
 * QEMU's command line: a pure function of the configuration. A VM that loads saved device state must have the same command
 * line as the one that saved it, so everything here is always said, whether this start needs it or not.
 */
import { BelljarError } from "../../base/index.ts";
import { AGENT_PORT, WAKE_PORT } from "../../protocol/index.ts";
import type { Acceleration, BootConfig, MemoryFile } from "../interface.ts";
import { deviceParts, type PlacedDevice } from "./device-arguments.ts";
import { DISK_BUS, diskParts, type PlacedDisk } from "./disk-arguments.ts";
import { growthArguments, growthKernelArguments, sizeArguments } from "./growth-arguments.ts";
import { optionValue, plugArguments } from "./plug-parts.ts";
import { rootPorts, switchPorts } from "./ports.ts";
import type { RunFiles } from "./run-files.ts";

/** All that depends on the architecture. */
export const x86 = {
  binary: "qemu-system-x86_64",
  /** Versioned, so that device state saved under one QEMU loads under a newer one. */
  machine: "pc-q35-7.2",
  /**
   * QEMU's own small one, which does no more than a kernel needs that is handed over with `-kernel`; SeaBIOS, QEMU's usual one, looks for disks
   * to boot from. Only where that takes time: under KVM in an emulated machine a guest with this one was seen to reset itself.
   */
  emulatedFirmware: "qboot.rom",
  /** What a container host has no use for; each is code that a hostile guest could reach, and some cost boot time. */
  machineOff: ["usb", "vmport", "smm", "sata", "smbus", "hpet"],
} as const;

export interface CommandLine {
  readonly id: string;
  readonly files: RunFiles;
  readonly acceleration: Acceleration;
  readonly memoryMib: number;
  readonly cpus: number;
  /** Up to where they can grow; no growth unless told. */
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  /** CPUs beyond `cpus` that the device state to be loaded has. */
  readonly pluggedCpus?: number | undefined;
  readonly boot: BootConfig;
  readonly disks: readonly PlacedDisk[];
  readonly devices: readonly PlacedDevice[];
  readonly sharedMemory: boolean;
  readonly wakePort: boolean;
  /** Number of PCIe root ports. */
  readonly ports: number;
  /** Number of ports of a PCIe switch; without any there is no switch. */
  readonly switchPorts: number;
  readonly memoryFile?: MemoryFile | undefined;
  /** Wait for device state instead of booting. */
  readonly incoming: boolean;
}

/**
 * Size of TCG's buffer for translated code; it costs memory only as far as it is used. Measured: `exec true` takes 750 ms with
 * 32 MiB, which kernel, agent and runtime together overflow again and again, and 200 ms with 64 MiB or more. QEMU's default is
 * 1 GiB.
 */
export const TCG_BUFFER_MIB = 128;

/**
 * All CPUs of a guest take turns in one thread. With a thread each, under QEMU 7.2, V8 in a guest of two CPUs ended by a signal in 2 of 8 runs,
 * in an emulated machine in 6 of 10, with one thread in none (docs/decisions/tcg-threads.md). A guest of one CPU is no slower, and any guest may
 * grow.
 */
const TCG = `tcg,thread=single,tb-size=${TCG_BUFFER_MIB}`;

/**
 * The emulated CPU: all that TCG has, but "fast" string instructions. A guest that is told of them copies and clears memory with
 * `rep movsb`, which TCG carries out byte by byte: a boot takes a second longer.
 */
const TCG_CPU = "max,-erms";

/** What a process carries in its name on the command line; see `findVmmProcesses`. */
export const NAME_PREFIX = "belljar-";

export function qemuArguments(line: CommandLine): string[] {
  const off = x86.machineOff.map((name) => `,${name}=off`).join("");
  return [
    "-name",
    `${NAME_PREFIX}${optionValue(line.id)},debug-threads=on`,
    "-pidfile",
    line.files.pidFile,

    // Nothing but what is said here, and no rights beyond what it needs: no new programs, no new rights, no rescheduling.
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",

    // `suppress-vmdesc` and `send-configuration`: `xen-save-devices-state` writes neither section, so none may be expected.
    "-machine",
    `${x86.machine},memory-backend=ram,suppress-vmdesc=on${off}`,
    "-global",
    "migration.send-configuration=off",
    "-accel",
    line.acceleration === "kvm" ? "kvm" : TCG,
    "-cpu",
    line.acceleration === "kvm" ? "host" : TCG_CPU,
    ...sizeArguments(line),
    "-object",
    json(memoryBackend(line)),

    // A reset ends the VM: a guest that panics and reboots must not start anew unseen. `-S`: we watch before it runs.
    "-no-reboot",
    "-S",
    ...(line.incoming ? ["-incoming", "defer"] : []),

    "-chardev",
    socketChardev("qmp", line.files.qmpSocket),
    "-mon",
    "chardev=qmp,mode=control",
    // A socket, never a file: a guest must not be able to fill the host's disk with its console. Unread output is dropped.
    "-chardev",
    socketChardev("console", line.files.consoleSocket),
    "-serial",
    "chardev:console",

    "-object",
    json({ "qom-type": "rng-builtin", id: "rng" }),
    "-device",
    json({ driver: "virtio-rng-pci", id: "rng0", rng: "rng" }),
    "-chardev",
    socketChardev("agent", line.files.agentSocket),
    "-device",
    json({ driver: "virtio-serial-pci", id: "ports", max_ports: line.wakePort ? 3 : 2 }),
    "-device",
    json({ driver: "virtserialport", bus: "ports.0", nr: 1, chardev: "agent", name: AGENT_PORT }),

    ...(line.wakePort ? wakePort(line.files) : []),

    ...growthArguments(line),

    "-device",
    json({ driver: "virtio-scsi-pci", id: DISK_BUS }),
    ...[...rootPorts(line.ports), ...switchPorts(line.switchPorts)].flatMap((port) => ["-device", json(port)]),
    ...line.disks.flatMap((disk) => plugArguments(diskParts(disk))),
    ...line.devices.flatMap((device) => plugArguments(deviceParts(device))),

    ...(line.acceleration === "tcg" ? ["-bios", x86.emulatedFirmware] : []),
    "-kernel",
    line.boot.kernelPath,
    ...(line.boot.initrdPath === undefined ? [] : ["-initrd", line.boot.initrdPath]),
    "-append",
    [...line.boot.kernelArguments, ...growthKernelArguments(line)].join(" "),
  ].map(checkArgument);
}

function wakePort({ wakeSocket }: RunFiles): string[] {
  const port = { driver: "virtserialport", bus: "ports.0", nr: 2, chardev: "wake", name: WAKE_PORT };
  return ["-chardev", socketChardev("wake", wakeSocket), "-device", json(port)];
}

/** No merging of equal pages with other VMs: it tells a guest what its neighbours hold. Not in the host's core dumps. */
function memoryBackend({ memoryMib, memoryFile, sharedMemory }: CommandLine): Record<string, unknown> {
  const size = { size: memoryMib * 1024 * 1024, merge: false, dump: false };
  if (sharedMemory) return { "qom-type": "memory-backend-memfd", id: "ram", share: true, ...size };
  if (memoryFile === undefined) return { "qom-type": "memory-backend-ram", id: "ram", ...size };
  const { path, use } = memoryFile;
  return { "qom-type": "memory-backend-file", id: "ram", "mem-path": path, share: use === "shared", ...size };
}

function socketChardev(id: string, path: string): string {
  return `socket,id=${id},path=${optionValue(path)},server=on,wait=off`;
}

function json(object: Record<string, unknown>): string {
  return JSON.stringify(object);
}

function checkArgument(argument: string): string {
  if (!argument.includes("\0")) return argument;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(argument)} has a NUL character in it`);
}
