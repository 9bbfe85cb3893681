/**
 * All that a container needs in the guest before it can be started: its root file system, control group and swap, and its
 * configuration with what only the guest can add. Made as a whole or not at all.
 */
import { access, constants, lstat, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Cgroups } from "./cgroups.ts";
import { Copies } from "./copies.ts";
import type { DiskMount, GuestMounts, LiveMount } from "./guest-mounts.ts";
import { BOOT_ID, type IdentityFiles } from "./identity-files.ts";
import type { NameFiles } from "./name-files.ts";
import { findDeviceNodes, type PciPath, withDeviceNodes } from "./pci-devices.ts";
import { type ContainerDevice, type PluggedDeps, withContainerDevices } from "./plugged-devices.ts";
import type { RootfsDisks, RootfsMounter } from "./rootfs.ts";
import type { SharedMemory } from "./shared-memory.ts";
import type { SharedPids } from "./shared-pids.ts";
import { asObject, type JsonObject } from "./spec.ts";
import {
  mountable,
  withArguments,
  withMountInstead,
  withMountSources,
  withMounts,
  withNamespace,
  withReadonlyPath,
} from "./spec-changes.ts";
import type { Swap } from "./swap.ts";
import { busyboxMount, waitingCommand } from "./waiting-process.ts";

export interface PlaceDeps {
  readonly mounter: RootfsMounter;
  readonly cgroups: Pick<Cgroups, "create" | "remove">;
  readonly names: Pick<NameFiles, "configure" | "plan" | "write">;
  readonly identity: Pick<IdentityFiles, "announce" | "introduce" | "mounts" | "plan">;
  readonly sharedMemory: Pick<SharedMemory, "mount" | "resize">;
  readonly sharedPids: Pick<SharedPids, "namespacePath">;
  readonly swap: Pick<Swap, "off" | "on" | "setSwappiness">;
  readonly mounts: Pick<GuestMounts, "release" | "share" | "take" | "unshare">;
  /** Each container has a directory below it. */
  readonly containersDir: string;
  readonly sysDir: string;
  readonly plugged: PluggedDeps;
}

export interface ContainerOptions {
  readonly id: string;
  readonly spec: JsonObject;
  readonly disks: RootfsDisks;
  readonly user: string;
  readonly shareMemory: boolean;
  readonly sharePids: boolean;
  /** Instead of the configuration's command, a process that only waits. */
  readonly keepAlive: boolean;
  /** Serial number of a disk to swap to. */
  readonly swap: string | undefined;
  readonly swappiness: number | undefined;
  /** Devices of the host of which it gets the nodes. */
  readonly pciDevices: readonly PciPath[];
  /** Disks and devices of the guest's own of which it gets a node. */
  readonly devices: readonly ContainerDevice[];
  readonly mounts: readonly MountRequest[];
}

/** Something to be mounted, by the name that the configuration has for it. */
export interface MountRequest {
  readonly key: string;
  readonly from:
    | { readonly disk: DiskMount }
    | { readonly copy: { readonly isFile: boolean } }
    | { readonly live: LiveMount };
}

export interface Place {
  readonly dir: string;
  readonly rootfs: string;
  readonly filesDir: string;
  readonly copies: Copies;
  readonly spec: JsonObject;
}

/** Where a container that is kept alive finds the program for it. */
const KEEP_ALIVE_BUSYBOX = "/run/belljar/busybox";

export async function preparePlace(deps: PlaceDeps, options: ContainerOptions): Promise<Place> {
  const { id, disks, swap, swappiness } = options;
  asObject(options.spec["process"], "the configuration's process");
  const dir = join(deps.containersDir, id);
  const undo: (() => Promise<void>)[] = [];
  try {
    undo.push(async () => await rm(dir, { recursive: true, force: true }));
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const { path: rootfs, filesDir } = await deps.mounter.mount(dir, disks);
    undo.push(async () => await deps.mounter.unmount(dir, disks));
    await deps.cgroups.create(id);
    undo.push(async () => await deps.cgroups.remove(id));
    const copies = new Copies(join(dir, "copies"));
    const sources = new Map<string, string>();
    for (const { key, from } of options.mounts) {
      if ("copy" in from) sources.set(key, await copies.add(key, from.copy.isFile));
      else if ("live" in from) {
        const place = join(dir, key);
        undo.push(async () => await deps.mounts.unshare(place));
        sources.set(key, await deps.mounts.share(place, from.live));
      } else {
        const { disk } = from;
        sources.set(key, await deps.mounts.take(id, disk, rootfs));
        undo.push(async () => await deps.mounts.release(id, disk.serial));
      }
    }
    const spec = withMountSources(await completed(deps, options, { rootfs, filesDir }), sources);
    if (swappiness !== undefined) await deps.swap.setSwappiness(swappiness);
    if (swap !== undefined) await deps.swap.on(swap);
    return { dir, rootfs, filesDir, copies, spec };
  } catch (error) {
    // No further when a step fails: what could not be unmounted must not be emptied.
    await undo.reduceRight((last, step) => last.then(step), Promise.resolve()).catch(() => {});
    throw error;
  }
}

/** May be repeated when it fails. */
export async function removePlace(deps: PlaceDeps, options: ContainerOptions, dir: string): Promise<void> {
  await deps.cgroups.remove(options.id);
  if (options.swap !== undefined) await deps.swap.off(options.swap);
  for (const { key, from } of options.mounts) {
    if ("disk" in from) await deps.mounts.release(options.id, from.disk.serial);
    if ("live" in from) await deps.mounts.unshare(join(dir, key));
  }
  await deps.mounter.unmount(dir, options.disks);
  await rm(dir, { recursive: true, force: true });
}

async function completed(
  deps: PlaceDeps,
  options: ContainerOptions,
  { rootfs, filesDir }: Pick<Place, "filesDir" | "rootfs">,
): Promise<JsonObject> {
  let spec = withMounts(options.spec, await deps.names.write(filesDir));
  const identity = await mountable(options.spec, deps.identity.mounts(), (path) => canHold(rootfs, path));
  spec = withMounts(spec, identity);
  // The mount's own flag gets lost where the configuration has /proc/sys read-only: crun lays a copy over all of it.
  if (identity.some(({ destination }) => destination === BOOT_ID)) spec = withReadonlyPath(spec, BOOT_ID);
  if (options.shareMemory) spec = withMountInstead(spec, await deps.sharedMemory.mount());
  if (options.sharePids) spec = withNamespace(spec, "pid", await deps.sharedPids.namespacePath());
  spec = withDeviceNodes(spec, await findDeviceNodes(deps.sysDir, options.pciDevices));
  spec = await withContainerDevices(deps.plugged, spec, options.devices);
  if (options.keepAlive) {
    spec = withMountInstead(spec, busyboxMount(KEEP_ALIVE_BUSYBOX));
    spec = withArguments(spec, waitingCommand(KEEP_ALIVE_BUSYBOX));
  }
  return spec;
}

/** The root file system has this path, or can be given it. */
async function canHold(rootfs: string, path: string): Promise<boolean> {
  const succeeds = (work: Promise<unknown>): Promise<boolean> =>
    work.then(
      () => true,
      () => false,
    );
  return (await succeeds(access(rootfs, constants.W_OK))) || (await succeeds(lstat(join(rootfs, path))));
}
