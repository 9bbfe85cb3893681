/** Devices that were plugged into the running guest: waits until they are there, and says under which nodes. */
import { constants, open, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { findDisk } from "./disks.ts";
import { type DeviceNode, findDeviceNodes, type PciPath, untilFound } from "./pci-devices.ts";
import { asObject, type JsonObject } from "./spec.ts";
import type { RunTool } from "./tools.ts";

export interface PluggedDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
  readonly devDir: string;
}

export interface PluggedDevice {
  /** Serial number of a disk; or else a place on the PCI bus. */
  readonly serial?: string | undefined;
  readonly pci?: PciPath | undefined;
  readonly modules: readonly string[];
  readonly unused: boolean;
  readonly noNodes: boolean;
}

/** A node that a container asks for. */
export interface ContainerDevice {
  readonly serial?: string | undefined;
  readonly path: string;
  readonly access: string;
}

/** The agent's port to the host is no container's. */
const NEVER = /^vport/;

/** @throws BelljarError `INVALID_ARGUMENT`, `AGENT_FAILED` when it does not appear, `DEVICE_IN_USE` */
export async function findPlugged(deps: PluggedDeps, device: PluggedDevice): Promise<readonly DeviceNode[]> {
  if (device.modules.some((name) => !/^[a-z0-9_]{1,40}$/.test(name))) {
    throw new BelljarError("INVALID_ARGUMENT", "a kernel module has a name that none has");
  }
  if (device.modules.length > 0) await deps.runTool("busybox", ["modprobe", "-a", ...device.modules]);
  if (device.serial === undefined) {
    if (device.pci === undefined) throw new BelljarError("INVALID_ARGUMENT", "nothing says which device is meant");
    if (!device.noNodes) return await findDeviceNodes(deps.sysDir, [device.pci]);
    await untilFound(deps.sysDir, device.pci);
    return [];
  }
  const path = await findDisk(device.serial, deps);
  if (device.unused) await checkUnused(path, device.serial);
  return [await nodeAt(path, basename(path))];
}

/** Adds the nodes to the container's configuration, each with the access that it is given. */
export async function withContainerDevices(
  deps: PluggedDeps,
  spec: JsonObject,
  devices: readonly ContainerDevice[],
): Promise<JsonObject> {
  if (devices.length === 0) return spec;
  const linux = asObject(spec["linux"] ?? {}, "the configuration's linux");
  const resources = asObject(linux["resources"] ?? {}, "the configuration's resources");
  const nodes: JsonObject[] = [];
  const rules: JsonObject[] = [];
  for (const { serial, path, access } of devices) {
    const { type, major, minor } = serial === undefined ? await ownNode(deps, path) : await diskNode(deps, serial);
    nodes.push({ path, type, major, minor, fileMode: 0o660, uid: 0, gid: 0 });
    rules.push({ allow: true, type, major, minor, access });
  }
  return {
    ...spec,
    linux: {
      ...linux,
      devices: [...listOf(linux["devices"]), ...nodes],
      resources: { ...resources, devices: [...listOf(resources["devices"]), ...rules] },
    },
  };
}

async function diskNode(deps: PluggedDeps, serial: string): Promise<DeviceNode> {
  const path = await findDisk(serial, deps);
  return await nodeAt(path, basename(path));
}

/** A character device that the guest's kernel has by itself, such as /dev/fuse. */
async function ownNode({ devDir, runTool }: PluggedDeps, path: string): Promise<DeviceNode> {
  const [, name] = /^\/dev\/([A-Za-z0-9_-]+(?:\/[A-Za-z0-9_-]+)*)$/.exec(path) ?? [];
  const missing = (cause?: unknown): BelljarError =>
    new BelljarError("DEVICE_NOT_FOUND", `the guest has no device of its own at ${path}`, { cause });
  if (name === undefined || NEVER.test(name)) throw missing();
  // Some are there only once their module is.
  if (/^[a-z0-9_]{1,40}$/.test(name)) await runTool("busybox", ["modprobe", "-q", name]).catch(() => {});
  const node = await nodeAt(join(devDir, name), name).catch((error: unknown) => {
    throw missing(error);
  });
  if (node.type !== "c") throw missing();
  return node;
}

async function nodeAt(path: string, name: string): Promise<DeviceNode> {
  const info = await stat(path);
  const { rdev } = info;
  // As the C library takes a device number apart, for the numbers that Linux has.
  const major = (rdev >> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
  return { name, type: info.isBlockDevice() ? "b" : "c", major, minor };
}

/** The kernel lets nobody open a disk exclusively that is mounted, swapped to, or part of another device. */
async function checkUnused(path: string, serial: string): Promise<void> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_EXCL);
    await file.close();
  } catch (error) {
    if (!hasErrno(error, "EBUSY")) throw error;
    throw new BelljarError("DEVICE_IN_USE", `the guest uses the disk ${serial}: it is mounted, or swapped to`);
  }
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
