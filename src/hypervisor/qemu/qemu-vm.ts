/**
 * A running QEMU as a `Vm`. The process, the control connection and the guest's console each end on their own; what is told
 * as the VM's end is the first cause seen, once all three are over and the run directory is clean.
 */
import { open, rm, stat, truncate } from "node:fs/promises";
import { BelljarError, type Log, systemClock, vmmLimits } from "../../base/index.ts";
import type {
  Acceleration,
  DeviceConfig,
  DiskConfig,
  DiskOverlay,
  MemoryBlock,
  MemoryFile,
  ResizeOptions,
  Vm,
  VmEnd,
  VmFileNames,
  VmInfo,
  VmSize,
  VmState,
  WakeLine,
} from "../interface.ts";
import type { GuestConsole } from "./console.ts";
import { deviceParts, type PlacedDevice } from "./device-arguments.ts";
import { diskParts, type PlacedDisk } from "./disk-arguments.ts";
import { growDisk } from "./disk-size.ts";
import { type Plugged, queryPlugged, resizeVm } from "./growth.ts";
import { plug, unplug } from "./hotplug.ts";
import { findMemoryBlocks } from "./memory-blocks.ts";
import { queryBlockedReasons, queryStatus, queryVcpuThreads } from "./monitor.ts";
import { closeOverlay, openOverlay, overlaid, useJoined, useOverlays } from "./overlays.ts";
import { place } from "./placement.ts";
import type { QmpClient, QmpEvent } from "./qmp.ts";
import { type RunFiles, removeRunFiles } from "./run-files.ts";
import { lastLines, readTail } from "./text-tail.ts";
import { killProcess, type VmmProcess } from "./vmm-process.ts";
import { openWakeLine } from "./wake-line.ts";

/** What a VM is made of, whether it was started or taken over. */
export interface QemuVmParts {
  readonly id: string;
  readonly runDir: string;
  readonly acceleration: Acceleration;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly sharedMemory: boolean;
  readonly wakePort: boolean;
  readonly ports: number;
  readonly switchPorts: number;
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  readonly plugged: Plugged;
  readonly disks: readonly PlacedDisk[];
  readonly devices: readonly PlacedDevice[];
  readonly memoryFile?: MemoryFile | undefined;
  readonly files: RunFiles;
  readonly process: VmmProcess;
  readonly qmp: QmpClient;
  readonly console: GuestConsole;
  readonly log: Log;
}

/** What is left to be read from sockets of a process that has ended is there already; this only bounds a fault. */
const DRAIN_TIMEOUT_MS = 1_000;

/** When the CPUs stood still last: by this process's clock and, of what it told, by the VMM's; in milliseconds. */
interface Told {
  readonly askedAtMs?: number | undefined;
  readonly stoppingMs?: number | undefined;
  readonly stoppedAtMs?: number | undefined;
  readonly ranAtMs?: number | undefined;
}

export class QemuVm implements Vm {
  readonly agentSocketPath: string;
  readonly ended: Promise<VmEnd>;
  readonly #parts: QemuVmParts;
  #disks: readonly PlacedDisk[];
  #memoryFile: MemoryFile | undefined;
  #devices: readonly PlacedDevice[];
  /** As far as this process knows: the guest may still be about to change it. */
  #plugged: Plugged;
  #opened: readonly DiskOverlay[] = [];
  #cause: "requested" | "guest-shutdown" | "guest-reset" | undefined;
  #end: VmEnd | undefined;
  #killed: Promise<void> | undefined;
  #released = false;
  /** When its CPUs stopped last, and ran again, in milliseconds since the epoch; by QEMU. */
  #told: Told = {};

  constructor(parts: QemuVmParts) {
    this.#parts = parts;
    this.#disks = parts.disks;
    this.#memoryFile = parts.memoryFile;
    this.#devices = parts.devices;
    this.#plugged = parts.plugged;
    this.agentSocketPath = parts.files.agentSocket;
    parts.qmp.onEvent((event) => this.#onEvent(event));
    this.ended = this.#watch();
  }

  async pause(): Promise<void> {
    this.#told = { askedAtMs: performance.now() };
    await this.#ask(() => this.#parts.qmp.execute("stop"));
  }

  async resume(): Promise<number | undefined> {
    await this.#ask(() => this.#parts.qmp.execute("cont"));
    // Told before the answer, which may come some milliseconds later: the guest has a CPU of the host already.
    const { stoppingMs, stoppedAtMs, ranAtMs } = this.#told;
    this.#told = {};
    if (stoppingMs === undefined || stoppedAtMs === undefined || ranAtMs === undefined) return undefined;
    return ranAtMs < stoppedAtMs ? undefined : stoppingMs + (ranAtMs - stoppedAtMs);
  }

  async info(): Promise<VmInfo> {
    const { acceleration, process, qmp } = this.#parts;
    const still = { acceleration, pid: process.identity.pid };
    if (this.#end !== undefined) return { ...still, status: "ended", vcpuThreadIds: [] };
    return await this.#ask(async () => {
      const { running } = await queryStatus(qmp);
      return { ...still, status: running ? "running" : "paused", vcpuThreadIds: await queryVcpuThreads(qmp) };
    });
  }

  async check(): Promise<void> {
    const { word } = await this.#ask(() => queryStatus(this.#parts.qmp));
    if (word === "internal-error" || word === "io-error" || word === "guest-panicked") {
      throw new BelljarError("VMM_DIED", `QEMU stopped the VM: ${word}`, { facts: { status: word } });
    }
    await boundLog(this.#parts.files.log);
  }

  async plugDisk(disk: DiskConfig): Promise<void> {
    const [placed] = this.#place({ disks: [disk] }).disks;
    if (placed === undefined) return;
    // Taken before the first wait, so that two calls at once get two places.
    this.#disks = [...this.#disks, placed];
    try {
      await this.#ask(() => plug(this.#parts.qmp, diskParts(placed)));
    } catch (error) {
      this.#disks = this.#disks.filter((other) => other.serial !== disk.serial);
      throw error;
    }
  }

  async unplugDisk(serial: string): Promise<void> {
    const disk = this.#disk(serial);
    await this.#ask(() => unplug(this.#parts.qmp, diskParts(disk), vmmLimits.unplugTimeoutMs));
    this.#disks = this.#disks.filter((each) => each.serial !== serial);
  }

  async growDisk(serial: string, sizeBytes: number): Promise<void> {
    const disk = this.#disk(serial);
    await this.#ask(() => growDisk(this.#parts.qmp, disk, sizeBytes));
  }

  async plugDevice(device: DeviceConfig): Promise<void> {
    checkMemoryShared(device, this.#parts.sharedMemory);
    const [placed] = this.#place({ devices: [device] }).devices;
    if (placed === undefined) return;
    this.#devices = [...this.#devices, placed];
    try {
      await this.#ask(() => plug(this.#parts.qmp, deviceParts(placed)));
    } catch (error) {
      this.#devices = this.#devices.filter((other) => other.id !== device.id);
      throw error;
    }
  }

  async unplugDevice(id: string): Promise<void> {
    const device = this.#devices.find((each) => each.id === id);
    if (device === undefined) throw absent("device", id);
    await this.#ask(() => unplug(this.#parts.qmp, deviceParts(device), vmmLimits.unplugTimeoutMs));
    this.#devices = this.#devices.filter((each) => each.id !== id);
  }

  #place(added: Parameters<typeof place>[0]): ReturnType<typeof place> {
    const { ports, switchPorts } = this.#parts;
    return place(added, ports, { disks: this.#disks, devices: this.#devices }, switchPorts);
  }

  async size(): Promise<VmSize> {
    this.#plugged = await this.#ask(() => queryPlugged(this.#parts.qmp, this.#parts, this.#plugged.cpus));
    return this.#sizeNow();
  }

  async resize(wanted: VmSize, options: ResizeOptions): Promise<VmSize> {
    const onChange = (plugged: Plugged): void => {
      this.#plugged = plugged;
    };
    const parked = this.#plugged.cpus;
    await this.#ask(() => resizeVm(this.#parts.qmp, this.#parts, wanted, { ...options, parked, onChange }));
    return this.#sizeNow();
  }

  async memoryBlocks(): Promise<readonly MemoryBlock[]> {
    return await this.#ask(() => findMemoryBlocks(this.#parts.qmp, this.#parts));
  }

  async openOverlays(overlays: readonly DiskOverlay[]): Promise<void> {
    await this.closeOverlays();
    for (const overlay of overlays) {
      const disk = this.#disk(overlay.serial);
      if ((disk.overlays ?? 0) - (disk.joined ?? 0) >= vmmLimits.overlaysMax) throw tooManyOverlays(disk.serial);
      this.#opened = [...this.#opened, overlay];
      await this.#ask(() => openOverlay(this.#parts.qmp, disk, overlay));
    }
  }

  async useOverlays(): Promise<void> {
    const over = this.#opened.map(({ serial, path }) => ({ disk: this.#disk(serial), path }));
    await this.#ask(() =>
      useOverlays(
        this.#parts.qmp,
        over.map(({ disk }) => disk),
      ),
    );
    this.#opened = [];
    const paths = new Map(over.map(({ disk, path }) => [disk.serial, path]));
    this.#disks = this.#disks.map((disk) => {
      const path = paths.get(disk.serial);
      return path === undefined ? disk : overlaid(disk, path);
    });
  }

  async useJoined({ serial, path }: DiskOverlay): Promise<void> {
    const disk = this.#disk(serial);
    // The disk itself was started with what is below: its next start has the joined file.
    if ((disk.overlays ?? 0) === 0) return;
    await this.#ask(() => useJoined(this.#parts.qmp, disk, path));
    const joined = disk.overlays;
    this.#disks = this.#disks.map((each) =>
      each.serial === serial && joined !== undefined ? { ...each, joined } : each,
    );
  }

  async closeOverlays(): Promise<void> {
    for (const { serial } of this.#opened) await this.#ask(() => closeOverlay(this.#parts.qmp, this.#disk(serial)));
    this.#opened = [];
  }

  async prepareDevices(path: string): Promise<void> {
    const blockers = await this.#ask(() => queryBlockedReasons(this.#parts.qmp));
    // Saving itself does not check this, and some devices crash QEMU in it.
    if (blockers.length > 0) {
      throw new BelljarError("NOT_CHECKPOINTABLE", `the VM's state cannot be saved: ${blockers.join("; ")}`, {
        facts: { blockers },
      });
    }
    // Made here, so that it has our owner and mode; QEMU writes into it.
    await makeFile(path);
  }

  async saveDevices(path: string): Promise<void> {
    const { qmp } = this.#parts;
    await this.#ask(async () => {
      try {
        // QEMU carries out one after the other. `live: false`: otherwise it lets go of the disks, and a second call aborts it.
        const [{ running }] = await Promise.all([
          queryStatus(qmp),
          qmp.execute("xen-save-devices-state", { filename: path, live: false }),
        ]);
        if (running) throw new BelljarError("INVALID_TRANSITION", "device state can be saved of a paused VM only");
        if ((await stat(path)).size === 0) throw new BelljarError("VMM_PROTOCOL", "QEMU saved no device state");
      } catch (error) {
        await rm(path, { force: true });
        throw error;
      }
    });
  }

  async openWakeLine(): Promise<WakeLine | undefined> {
    const { wakePort, files } = this.#parts;
    return wakePort ? await openWakeLine(files.wakeSocket) : undefined;
  }

  consoleTail(): string {
    return this.#parts.console.text();
  }

  renameFiles({ disks, memoryFile }: VmFileNames): void {
    this.#disks = this.#disks.map((disk) => ({ ...disk, path: disks.get(disk.serial) ?? disk.path }));
    this.#memoryFile = memoryFile;
  }

  save(): VmState {
    const { id, runDir, acceleration, memoryMib, cpus, sharedMemory, ports, switchPorts, process } = this.#parts;
    const { memoryMaxMib, cpusMax, wakePort } = this.#parts;
    const still = { id, vmm: process.identity, runDir, acceleration, memoryMib, cpus, sharedMemory, ports };
    return {
      ...still,
      memoryMaxMib,
      cpusMax,
      pluggedMemoryMib: this.#plugged.memoryMib,
      pluggedCpus: this.#plugged.cpus,
      ...(wakePort ? { wakePort } : {}),
      ...(switchPorts === 0 ? {} : { switchPorts }),
      disks: this.#disks,
      devices: this.#devices,
      memoryFile: this.#memoryFile,
    };
  }

  async kill(): Promise<void> {
    if (this.#end !== undefined) return;
    if (this.#released) throw letGo();
    this.#killed ??= this.#quit();
    await this.#killed;
  }

  async release(): Promise<void> {
    if (this.#end !== undefined) return;
    this.#released = true;
    this.#parts.qmp.close();
    this.#parts.console.close();
    this.#parts.process.release();
  }

  async #quit(): Promise<void> {
    this.#cause ??= "requested";
    const { qmp, process } = this.#parts;
    // `quit` writes out what the disks' formats hold in memory; without a disk to write to it only takes time.
    if (this.#disks.some((disk) => !disk.readOnly)) {
      const timeoutMs = vmmLimits.quitTimeoutMs;
      qmp.execute("quit", {}, { timeoutMs }).catch(() => {});
      await wait(process.ended, timeoutMs);
    }
    await killProcess(process.identity);
    await this.ended;
  }

  #disk(serial: string): PlacedDisk {
    const disk = this.#disks.find((each) => each.serial === serial);
    if (disk === undefined) throw absent("disk", serial);
    return disk;
  }

  #sizeNow(): VmSize {
    const { memoryMib, cpus } = this.#parts;
    return { memoryMib: memoryMib + this.#plugged.memoryMib, cpus: cpus + this.#plugged.cpus };
  }

  async #watch(): Promise<VmEnd> {
    const { process, qmp, console, files, log } = this.#parts;
    const how = await process.ended;
    if (this.#released) return await new Promise(() => {});
    await wait(Promise.all([qmp.closed, console.closed]), DRAIN_TIMEOUT_MS);
    const end = await this.#describeEnd(how);
    qmp.close();
    console.close();
    await removeRunFiles(files).catch((error: unknown) => {
      log.warn("the run directory of an ended VM could not be cleaned", { vm: this.#parts.id, error: String(error) });
    });
    this.#end = end;
    return end;
  }

  async #describeEnd(how: string): Promise<VmEnd> {
    if (this.#cause === "requested") return { cause: "requested" };
    if (this.#cause !== undefined) {
      const panic = this.#parts.console.panic();
      const itself = this.#cause === "guest-reset" ? "the guest reset itself" : "the guest powered itself off";
      return { cause: "guest", panic: panic !== undefined, detail: panic ?? itself };
    }
    const lines = await this.#logLines();
    return { cause: "died", detail: `QEMU ${[how, ...lines].join("; ")}` };
  }

  #onEvent(event: QmpEvent): void {
    const { askedAtMs } = this.#told;
    if (event.name === "STOP") {
      const stoppingMs = askedAtMs === undefined ? undefined : performance.now() - askedAtMs;
      this.#told = { stoppingMs, stoppedAtMs: event.atMs };
    }
    if (event.name === "RESUME") this.#told = { ...this.#told, ranAtMs: event.atMs };
    if (event.name !== "SHUTDOWN") return;
    const byGuest = event.data.field("guest").boolean();
    const reason = event.data.field("reason").optional((field) => field.string({ maxLength: 64 }));
    if (byGuest) this.#cause ??= reason === "guest-reset" ? "guest-reset" : "guest-shutdown";
  }

  async #logLines(): Promise<string[]> {
    return lastLines(await readTail(this.#parts.files.log));
  }

  /** Does something that needs the process, and says in its error what became of the process. */
  async #ask<T>(work: () => Promise<T>): Promise<T> {
    if (this.#released) throw letGo();
    try {
      if (this.#end !== undefined) throw new BelljarError("VMM_DIED", "the VM has ended");
      return await work();
    } catch (error) {
      if (!(error instanceof BelljarError)) throw error;
      if (error.reason === "VMM_DIED") {
        const end = this.#end ?? (await wait(this.ended, DRAIN_TIMEOUT_MS, () => this.#end));
        if (end !== undefined) throw new BelljarError("VMM_DIED", endText(end), { facts: { cause: end.cause } });
      }
      const lines = error.reason === "INVALID_TRANSITION" ? [] : await this.#logLines();
      if (lines.length === 0) throw error;
      throw new BelljarError(error.reason, `${error.message}; QEMU's last words: ${lines.join("; ")}`, {
        facts: error.facts,
        cause: error.cause,
      });
    }
  }
}

export function endText(end: VmEnd): string {
  if (end.cause === "requested") return "the VM was ended";
  return end.cause === "guest" ? `the VM has ended: ${end.detail}` : end.detail;
}

/** @throws BelljarError `SHARED_MEMORY_NEEDED` */
export function checkMemoryShared(device: DeviceConfig, sharedMemory: boolean): void {
  if (sharedMemory || device.kind === "vfio" || device.kind === "net") return;
  throw new BelljarError(
    "SHARED_MEMORY_NEEDED",
    `the ${device.kind} device ${device.id} needs a VM whose memory can be shared with other programs`,
    { facts: { device: device.id, kind: device.kind } },
  );
}

function absent(what: string, name: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `the VM has no ${what} ${name}`, { facts: { [what]: name } });
}

function tooManyOverlays(serial: string): BelljarError {
  return new BelljarError("NOT_CHECKPOINTABLE", `the disk ${serial} has as many overlays as it may have`, {
    facts: { disk: serial, max: vmmLimits.overlaysMax },
    remedy: "Stop the sandbox and start it again.",
  });
}

async function makeFile(path: string): Promise<void> {
  await using _file = await open(path, "w", 0o600);
}

function letGo(): BelljarError {
  return new BelljarError("INVALID_TRANSITION", "this handle of the VM was let go");
}

/** Waits for something at most this long; answers whether it came, or what `result` makes of it. */
async function wait(work: Promise<unknown>, timeoutMs: number): Promise<boolean>;
async function wait<T>(work: Promise<unknown>, timeoutMs: number, result: () => T): Promise<T>;
async function wait(work: Promise<unknown>, timeoutMs: number, result?: () => unknown): Promise<unknown> {
  const timer = new AbortController();
  const timeout = systemClock.sleep(timeoutMs, timer.signal).then(
    () => false,
    () => false,
  );
  const came = await Promise.race([work.then(() => true), timeout]);
  timer.abort();
  return result === undefined ? came : result();
}

async function boundLog(path: string): Promise<void> {
  const { size } = await stat(path);
  if (size > vmmLimits.logMaxBytes) await truncate(path);
}
