/**
 * The devices of one sandbox, and who has them. Two counters: references (who knows a device) and attachments (who has it in the
 * VM), of which only the first attachment and the last do work. What is the same device is plugged once, whoever asks for it.
 *
 * Invariants: work is written down before its first step (`phase`) and together with its result; a failed attachment leaves the
 * device as it was; one that could not be taken out again stays `detaching`, for the next owner to finish. Nothing runs at once.
 */
import { randomBytes } from "node:crypto";
import { basename } from "node:path";
import { BelljarError, deviceLimits, isAlive, type Log, messageChain, throwIfAborted } from "../base/index.ts";
import type { DeviceConfig, DiskConfig, Vm } from "../hypervisor/interface.ts";
import { Turns } from "../store/index.ts";
import { endBackEnd, findBackEnds, logPathOf } from "./back-end-process.ts";
import type { DevicePhase, DeviceState, GuestNode } from "./device-state.ts";
import type { DevicePlace } from "./kind.ts";
import { type DeviceRequest, kindOf } from "./kinds.ts";

/** Who has a device that was added to the sandbox as such. */
export const SANDBOX = "sandbox";

/** How the guest is asked for a device: by serial number, or by the port that it sits on. */
export interface GuestQuestion {
  readonly serial?: string;
  readonly port?: number;
  readonly modules: readonly string[];
  /** Fail when the guest uses it. */
  readonly unused: boolean;
  readonly noNodes: boolean;
}

export interface ManagerDeps {
  readonly place: DevicePlace;
  /** @throws BelljarError `VMM_DIED` when there is none */
  readonly vm: () => Vm;
  /** Fails with the VM's end if that comes first. */
  readonly whileAlive: <T>(work: Promise<T>) => Promise<T>;
  readonly findInGuest: (question: GuestQuestion, signal: AbortSignal | undefined) => Promise<readonly GuestNode[]>;
  /** Writes `save()` down. */
  readonly write: () => Promise<void>;
  readonly log: Log;
  readonly newId?: () => string;
}

export interface AddOptions {
  readonly holder?: string;
  readonly signal?: AbortSignal | undefined;
}

export class DeviceManager {
  readonly #deps: ManagerDeps;
  readonly #turns: Turns;
  #devices: readonly DeviceState[];

  constructor(deps: ManagerDeps, devices: readonly DeviceState[]) {
    this.#deps = deps;
    this.#devices = devices;
    this.#turns = new Turns(`the devices of sandbox ${deps.place.sandboxId}`);
  }

  /** All of them, oldest first; the same list until something changes. */
  save(): readonly DeviceState[] {
    return this.#devices;
  }

  get(id: string): DeviceState {
    const found = this.#devices.find((device) => device.id === id);
    if (found !== undefined) return found;
    throw new BelljarError("DEVICE_NOT_FOUND", `the sandbox has no device ${JSON.stringify(id.slice(0, 40))}`);
  }

  /**
   * Gives a device to a holder, plugging it unless it is there. All or nothing.
   * @throws BelljarError what is wrong with the device; what QEMU or the guest said
   */
  add(request: DeviceRequest, options: AddOptions = {}): Promise<DeviceState> {
    const holder = options.holder ?? SANDBOX;
    return this.#turns.take(async () => {
      throwIfAborted(options.signal);
      const { key, config } = await kindOf(request).check(this.#deps.place);
      const { id } = await this.#reference(key, config, holder);
      try {
        await this.#attach(id, holder, true, options.signal);
      } catch (error) {
        await this.#dereference(id, holder).catch(() => {});
        throw error;
      }
      return this.get(id);
    });
  }

  /** Takes a holder's device away again: once, where it has it several times. @throws BelljarError `DEVICE_NOT_FOUND`, `DEVICE_IN_USE` */
  remove(id: string, holder: string = SANDBOX): Promise<void> {
    return this.#turns.take(async () => {
      const device = this.get(id);
      if (!device.references.includes(holder)) throw this.#held(device);
      const others = device.attachments.filter((each) => each !== holder);
      if (holder === SANDBOX && others.length > 0) throw this.#held(device);
      if (device.attachments.includes(holder)) await this.#detach(id, holder, true);
      // What an owner that died had half plugged.
      else if (device.attachments.length === 0 && device.phase !== "detached") await this.#unplug(id);
      await this.#dereference(id, holder);
    });
  }

  /** A container's own disk, or a layer of its image. Not written down by itself: the container's state says it already. */
  addDisk(disk: DiskConfig, holder: string): Promise<void> {
    return this.#turns.take(async () => {
      this.#noteDisk(disk, holder);
      try {
        await this.#attach(disk.serial, holder, false, undefined);
      } catch (error) {
        this.#forgetHolder(disk.serial, holder);
        throw error;
      }
    });
  }

  /** What is not there is success. */
  removeDisk(serial: string, holder: string): Promise<void> {
    return this.#turns.take(async () => {
      const device = this.#devices.find((each) => each.id === serial);
      if (device === undefined || !device.references.includes(holder)) return;
      if (device.attachments.includes(holder)) await this.#detach(serial, holder, false);
      this.#forgetHolder(serial, holder);
    });
  }

  /** Everything that a holder has that is not its own disk; each is tried, the first error is thrown. */
  async removeAllOf(holder: string): Promise<void> {
    const errors: unknown[] = [];
    for (const { id, references, isContainers } of this.#devices) {
      for (const each of references) {
        if (each === holder && !isContainers)
          await this.remove(id, holder).catch((error: unknown) => errors.push(error));
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  /** Whether the device is there, whoever has it. */
  async has(request: DeviceRequest): Promise<boolean> {
    const { key } = await kindOf(request).check(this.#deps.place);
    return this.#devices.some((device) => device.key === key && device.attachments.length > 0);
  }

  /** Has the next VM have a device from its start, as the sandbox's own. Nothing is plugged yet, and nothing written down. */
  reserve(request: DeviceRequest): Promise<void> {
    return this.#turns.take(async () => {
      const { key, config } = await kindOf(request).check(this.#deps.place);
      if (this.#devices.some((device) => device.key === key && device.references.includes(SANDBOX))) return;
      const { id, attachments } = await this.#reference(key, config, SANDBOX);
      this.#change(id, { attachments: [...attachments, SANDBOX] });
    });
  }

  /** What the next VM must have from its start; programs behind it are started. On an error none of them is left. */
  async coldPlug(signal?: AbortSignal): Promise<{ disks: readonly DiskConfig[]; devices: readonly DeviceConfig[] }> {
    const disks: DiskConfig[] = [];
    const devices: DeviceConfig[] = [];
    for (const { id, config, attachments, disk, device } of this.#devices) {
      if (attachments.length === 0) continue;
      await kindOf(config).check(this.#deps.place);
      const backEnd = await kindOf(config).prepare(id, this.#deps.place, signal);
      this.#change(id, { backEnd, phase: "attached", nodes: [] });
      const plugged = kindOf(config).plug(id, this.#deps.place);
      // Where it was, so that the guest finds it where it had it.
      if (plugged.disk !== undefined) disks.push({ ...plugged.disk, ...addressOf(disk) });
      if (plugged.device !== undefined) devices.push({ ...plugged.device, ...addressOf(device) });
    }
    return { disks, devices };
  }

  /** The guest is up: takes down where it has what was plugged before it booted. */
  async findAll(signal?: AbortSignal): Promise<void> {
    for (const { id, phase, nodes, isContainers } of this.#devices) {
      if (phase !== "attached" || nodes.length > 0 || isContainers) continue;
      const found = await this.#find(id, false, signal);
      this.#change(id, { nodes: found, ...this.#placed(id) });
    }
  }

  /** The VM is gone: what belonged to containers goes with it, the rest waits for the next one. */
  async vmEnded(): Promise<void> {
    for (const { id, config, backEnd, references, attachments, isContainers } of this.#devices) {
      await kindOf(config)
        .release(id, this.#deps.place, backEnd)
        .catch((error: unknown) => this.#warn("a program behind a device could not be ended", id, error));
      const keeps = (holder: string): boolean => holder === SANDBOX && !isContainers;
      const kept = references.filter(keeps);
      if (kept.length === 0) this.#devices = this.#devices.filter((each) => each.id !== id);
      else {
        const still = { phase: "detached", references: kept, backEnd: undefined, nodes: [] } as const;
        this.#change(id, { ...still, attachments: attachments.filter(keeps) });
      }
    }
  }

  /** Another VM goes on with these, which are plugged into it. */
  replace(devices: readonly DeviceState[]): void {
    this.#devices = devices;
  }

  /** Of a VM that another process had: what may be plugged without its state saying so. */
  doubtful(): { disks: readonly DiskConfig[]; devices: readonly DeviceConfig[] } {
    const plugs = this.#devices.map(({ id, config, disk, device }) => {
      const plug = kindOf(config).plug(id, this.#deps.place);
      return {
        disk: plug.disk === undefined ? undefined : { ...plug.disk, ...addressOf(disk) },
        device: plug.device === undefined ? undefined : { ...plug.device, ...addressOf(device) },
      };
    });
    return {
      disks: plugs.flatMap(({ disk }) => (disk === undefined ? [] : [disk])),
      devices: plugs.flatMap(({ device }) => (device === undefined ? [] : [device])),
    };
  }

  /**
   * After another process was the owner: what was half attached or half detached is taken away; what nobody has any more, too.
   * @param containers those that the guest has, with their disks
   */
  reconcile(containers: readonly { readonly id: string; readonly disks: readonly DiskConfig[] }[]): Promise<void> {
    return this.#turns.take(async () => {
      const there = new Set([SANDBOX, ...containers.map(({ id }) => id)]);
      for (const { id, references, attachments, phase } of this.#devices) {
        const isHalf = phase === "attaching" || phase === "detaching";
        const keeps = (holder: string): boolean => there.has(holder) && !(isHalf && holder === SANDBOX);
        const kept = attachments.filter(keeps);
        // Who had let go of it, or had not got it yet, has nothing of it.
        this.#change(id, { attachments: kept, references: kept.length === 0 ? [] : references.filter(keeps) });
      }
      for (const { id, disks } of containers) {
        for (const disk of disks) {
          this.#noteDisk(disk, id);
          const { attachments } = this.get(disk.serial);
          const now = attachments.includes(id) ? attachments : [...attachments, id];
          this.#change(disk.serial, { attachments: now, phase: "attached", ...this.#placed(disk.serial) });
        }
      }
      for (const { id, attachments, backEnd } of this.#devices) {
        if (attachments.length === 0)
          await this.#takeAway(id).catch((error: unknown) =>
            this.#warn("a device that nobody has could not be taken away", id, error),
          );
        else if (backEnd !== undefined && !(await isAlive(backEnd))) {
          this.#deps.log.warn("the program behind a device has ended", { device: id, pid: backEnd.pid });
        }
      }
    });
  }

  /** Programs that were started for a device and not written down any more. */
  async endLostBackEnds(): Promise<void> {
    const owned = new Set(this.#devices.map(({ backEnd }) => backEnd?.pid));
    for (const found of await findBackEnds(this.#deps.place.runDir)) {
      const id = /^(d-[0-9a-f]{16})\.sock$/.exec(basename(found.socketPath))?.[1];
      if (id === undefined || owned.has(found.identity.pid)) continue;
      const { socketPath, program } = found;
      await endBackEnd(found.identity, { what: basename(program), socketPath, logPath: logPathOf(socketPath) });
      this.#deps.log.info("a program that belonged to no device was ended", { device: id });
    }
  }

  async #takeAway(id: string): Promise<void> {
    await this.#unplug(id);
    this.#devices = this.#devices.filter((device) => device.id !== id || device.references.length > 0);
  }

  async #reference(key: string, config: DeviceRequest, holder: string): Promise<DeviceState> {
    const known = this.#devices.find((device) => device.key === key);
    if (known !== undefined) {
      if (known.isContainers) {
        throw new BelljarError("DEVICE_IN_USE", `${titleOf(config)} is a container's own disk`, {
          facts: { holders: [...known.references] },
        });
      }
      if (!isSame(known.config, config)) {
        throw new BelljarError("DEVICE_IN_USE", `${titleOf(config)} is there already, with other options`, {
          facts: { device: known.id },
          remedy: "Use the same options, or remove it first.",
        });
      }
      if (known.references.length >= deviceLimits.holdersMax) {
        throw new BelljarError("TOO_MANY_DEVICES", `${titleOf(config)} is referred to as often as it can be`);
      }
      this.#change(known.id, { references: [...known.references, holder] });
      return this.get(known.id);
    }
    if (this.#devices.filter(({ isContainers }) => !isContainers).length >= deviceLimits.devicesMax) {
      throw new BelljarError("TOO_MANY_DEVICES", `the sandbox has ${deviceLimits.devicesMax} devices already`);
    }
    const device: DeviceState = {
      id: this.#freshId(),
      key,
      config,
      isContainers: false,
      phase: "detached",
      references: [holder],
      attachments: [],
      nodes: [],
    };
    this.#devices = [...this.#devices, device];
    return device;
  }

  async #dereference(id: string, holder: string): Promise<void> {
    const device = this.get(id);
    if (!device.references.includes(holder)) throw underflow(device, holder, "referred to");
    if (device.references.length === 1 && device.attachments.length > 0) throw this.#held(device);
    this.#forgetHolder(id, holder);
    await this.#deps.write();
  }

  /** @param isWritten whether its steps are written down; a container's disks are in the container's state */
  async #attach(id: string, holder: string, isWritten: boolean, signal: AbortSignal | undefined): Promise<void> {
    const before = this.get(id);
    if (before.attachments.length > 0) {
      this.#change(id, { attachments: [...before.attachments, holder] });
      if (isWritten) await this.#deps.write();
      return;
    }
    if (before.phase === "detaching") {
      throw new BelljarError("DEVICE_IN_USE", `the device ${id} is still being taken out of the VM`);
    }
    await this.#enter(id, "attaching", isWritten);
    try {
      const kind = kindOf(before.config);
      const backEnd = await kind.prepare(id, this.#deps.place, signal);
      if (backEnd !== undefined) {
        this.#change(id, { backEnd });
        await this.#deps.write();
      }
      const nodes = await this.#plug(id, before, signal);
      this.#change(id, { phase: "attached", attachments: [holder], nodes, ...this.#placed(id) });
      if (isWritten) await this.#deps.write();
    } catch (error) {
      await this.#rollBack(id, isWritten);
      throw error;
    }
  }

  /** Answers what the guest has it as; of a container's own disk the agent finds that out when the container is made. */
  async #plug(id: string, before: DeviceState, signal: AbortSignal | undefined): Promise<readonly GuestNode[]> {
    const { disk, device } = kindOf(before.config).plug(id, this.#deps.place);
    const vm = this.#deps.vm();
    const failure = new AbortController();
    const either = signal === undefined ? failure.signal : AbortSignal.any([signal, failure.signal]);
    // Asked for at once: the guest looks out for a disk while it is plugged.
    const looking = disk !== undefined && !before.isContainers ? this.#find(id, false, either) : undefined;
    looking?.catch(() => {});
    try {
      // A successor may find it there already.
      if (disk !== undefined && !isPlugged(vm, id)) await this.#deps.whileAlive(vm.plugDisk(disk));
      if (device !== undefined && !isPlugged(vm, id)) await this.#deps.whileAlive(vm.plugDevice(device));
    } catch (error) {
      failure.abort();
      throw error;
    }
    if (before.isContainers) return [];
    return await (looking ?? this.#find(id, false, signal));
  }

  async #rollBack(id: string, isWritten: boolean): Promise<void> {
    try {
      await this.#unplug(id);
      if (isWritten) await this.#deps.write();
    } catch (error) {
      this.#change(id, { phase: "detaching", attachments: [] });
      this.#warn("a device that could not be attached could not be taken away either", id, error);
    }
  }

  async #detach(id: string, holder: string, isWritten: boolean): Promise<void> {
    const before = this.get(id);
    if (!before.attachments.includes(holder)) throw underflow(before, holder, "attached");
    // Without a VM there is nothing to take it out of.
    if (before.attachments.length > 1 || before.phase === "detached") {
      this.#change(id, { attachments: without(before.attachments, holder) });
      if (isWritten) await this.#deps.write();
      return;
    }
    if (!before.isContainers && before.disk !== undefined) await this.#find(id, true, undefined);
    await this.#enter(id, "detaching", isWritten);
    try {
      await this.#unplug(id);
    } catch (error) {
      // The VM has it still, and so its holder.
      this.#change(id, { phase: "attached" });
      if (isWritten) await this.#deps.write().catch(() => {});
      throw error;
    }
    if (isWritten) await this.#deps.write();
  }

  /** Out of the VM, as far as it is there, and the host's side of it undone. */
  async #unplug(id: string): Promise<void> {
    const { config, backEnd } = this.get(id);
    const vm = this.#deps.vm();
    const { disks, devices = [] } = vm.save();
    if (disks.some(({ serial }) => serial === id)) await this.#deps.whileAlive(vm.unplugDisk(id));
    if (devices.some((device) => device.id === id)) await this.#deps.whileAlive(vm.unplugDevice(id));
    await kindOf(config).release(id, this.#deps.place, backEnd);
    this.#change(id, { phase: "detached", attachments: [], backEnd: undefined, nodes: [] });
  }

  async #enter(id: string, phase: DevicePhase, isWritten: boolean): Promise<void> {
    const before = this.get(id);
    this.#change(id, { phase });
    if (!isWritten) return;
    try {
      await this.#deps.write();
    } catch (error) {
      this.#change(id, { phase: before.phase });
      throw error;
    }
  }

  async #find(id: string, unused: boolean, signal: AbortSignal | undefined): Promise<readonly GuestNode[]> {
    const { disk, device, modules, noNodes = false } = kindOf(this.get(id).config).plug(id, this.#deps.place);
    const how = { modules, unused, noNodes };
    if (disk !== undefined) return await this.#deps.findInGuest({ ...how, serial: id }, signal);
    const port = this.#placed(id).device?.port;
    if (device === undefined || port === undefined) return [];
    return await this.#deps.findInGuest({ ...how, port }, signal);
  }

  #placed(id: string): Pick<DeviceState, "device" | "disk"> {
    const { disks, devices = [] } = this.#deps.vm().save();
    return { disk: disks.find(({ serial }) => serial === id), device: devices.find((device) => device.id === id) };
  }

  #noteDisk(disk: DiskConfig, holder: string): void {
    const known = this.#devices.find((device) => device.id === disk.serial);
    if (known !== undefined) {
      if (!known.references.includes(holder)) this.#change(known.id, { references: [...known.references, holder] });
      return;
    }
    const { path, readOnly, format, isHostDevice } = disk;
    const device: DeviceState = {
      id: disk.serial,
      key: `file:${path}`,
      config: { kind: "block", path, readOnly, format, ...(isHostDevice === true ? { isHostDevice } : {}) },
      isContainers: true,
      phase: "detached",
      references: [holder],
      attachments: [],
      nodes: [],
    };
    this.#devices = [...this.#devices, device];
  }

  #forgetHolder(id: string, holder: string): void {
    const references = without(this.get(id).references, holder);
    if (references.length > 0 || this.get(id).phase === "detaching") this.#change(id, { references });
    else this.#devices = this.#devices.filter((device) => device.id !== id);
  }

  #change(id: string, change: Partial<DeviceState>): void {
    this.#devices = this.#devices.map((device) => (device.id === id ? { ...device, ...change } : device));
  }

  #freshId(): string {
    const newId = this.#deps.newId ?? (() => `d-${randomBytes(8).toString("hex")}`);
    for (let tries = 0; tries < deviceLimits.idTries; tries += 1) {
      const id = newId();
      if (!this.#devices.some((device) => device.id === id)) return id;
    }
    throw new BelljarError("INTERNAL", `no free id for a device after ${deviceLimits.idTries} tries`);
  }

  #held(device: DeviceState): BelljarError {
    const holders = [...new Set(device.attachments.length > 0 ? device.attachments : device.references)];
    const who = holders.map((each) => (each === SANDBOX ? "the sandbox" : `container ${each}`)).join(", ");
    return new BelljarError("DEVICE_IN_USE", `the device ${device.id} is in use by ${who}`, {
      facts: { device: device.id, holders },
      remedy: "Stop or delete the container first.",
    });
  }

  #warn(message: string, device: string, error: unknown): void {
    this.#deps.log.warn(message, { device, cause: messageChain(error).join(": ") });
  }
}

/** What a device is on the host, in a word for an error or a list. */
export function titleOf(config: DeviceRequest): string {
  switch (config.kind) {
    case "block":
    case "generic":
      return config.path;
    case "vhost-user-fs":
      return config.directory ?? config.socketPath ?? config.tag;
    case "vhost-user-blk":
      return config.path ?? config.socketPath ?? "";
    case "vfio":
      return config.source;
    default:
      return config.socketPath;
  }
}

function isPlugged(vm: Vm, id: string): boolean {
  const { disks, devices = [] } = vm.save();
  return disks.some(({ serial }) => serial === id) || devices.some((device) => device.id === id);
}

function addressOf(placed: { readonly slot?: number; readonly port?: number } | undefined): {
  slot?: number;
  port?: number;
} {
  return {
    ...(placed?.slot === undefined ? {} : { slot: placed.slot }),
    ...(placed?.port === undefined ? {} : { port: placed.port }),
  };
}

/** Without one of those that are equal. */
function without(holders: readonly string[], holder: string): readonly string[] {
  const at = holders.indexOf(holder);
  return at === -1 ? holders : holders.toSpliced(at, 1);
}

function isSame(one: DeviceRequest, other: DeviceRequest): boolean {
  const plain = (config: DeviceRequest): string => JSON.stringify(Object.entries(config).sort());
  return plain(one) === plain(other);
}

function underflow(device: DeviceState, holder: string, what: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `the device ${device.id} is not ${what} by ${holder}`);
}
