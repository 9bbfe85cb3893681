/**
 * Devices of the host that were handed to the guest. Each is found by its place on the PCI bus, which is a matter of the VM's
 * ports and the same at every boot; a container gets the nodes that the guest's drivers have made for it, and no others.
 */
import { readdir, readFile, readlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { guestDeviceLimits } from "../src/base/limits.ts";
import { asObject, type JsonObject } from "./spec.ts";

export interface DeviceNode {
  /** Below /dev. */
  readonly name: string;
  readonly type: "b" | "c";
  readonly major: number;
  readonly minor: number;
}

/** Bridges from the root bus down, then the function itself; `0000:00:10.3`, then slot and function only: `00.0`. */
export type PciPath = readonly string[];

const FIRST_HOP = /^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;
const HOP = /^[01][0-9a-f]\.[0-7]$/;
/** Places below a device that are other devices' or say nothing of nodes. */
const NOT_BELOW = new Set([
  "power",
  "msi_irqs",
  "subsystem",
  "driver",
  "firmware_node",
  "iommu",
  "trace",
  "holders",
  "slaves",
]);

/**
 * The nodes of all these functions. A device that has none, such as a network interface, is one that no node is needed for.
 * @throws BelljarError `INVALID_ARGUMENT`, `AGENT_FAILED` when a function does not appear
 */
export async function findDeviceNodes(sysDir: string, paths: readonly PciPath[]): Promise<DeviceNode[]> {
  if (paths.length === 0) return [];
  const dirs: string[] = [];
  for (const path of paths) dirs.push(await untilFound(sysDir, path));
  return await settled(async () => (await Promise.all(dirs.map(nodesBelow))).flat());
}

/** Puts the nodes into the container's /dev, under the names that they have in the guest, and lets it open them. */
export function withDeviceNodes(spec: JsonObject, nodes: readonly DeviceNode[]): JsonObject {
  if (nodes.length === 0) return spec;
  const linux = asObject(spec["linux"] ?? {}, "the configuration's linux");
  const resources = asObject(linux["resources"] ?? {}, "the configuration's resources");
  const devices = nodes.map(({ name, type, major, minor }) => ({ path: `/dev/${name}`, type, major, minor }));
  const rules = nodes.map(({ type, major, minor }) => ({ allow: true, type, major, minor, access: "rwm" }));
  return {
    ...spec,
    linux: {
      ...linux,
      devices: [...listOf(linux["devices"]), ...devices],
      resources: { ...resources, devices: [...listOf(resources["devices"]), ...rules] },
    },
  };
}

/** @throws BelljarError `INVALID_ARGUMENT`, `AGENT_FAILED` */
export async function untilFound(sysDir: string, path: PciPath): Promise<string> {
  const [first = "", ...others] = path;
  if (!FIRST_HOP.test(first) || others.length > guestDeviceLimits.hopsMax || !others.every((hop) => HOP.test(hop))) {
    throw new BelljarError("INVALID_ARGUMENT", "a device's place on the PCI bus is malformed");
  }
  const endMs = performance.now() + guestDeviceLimits.appearTimeoutMs;
  for (;;) {
    const found = await findFunction(sysDir, path);
    if (found !== undefined) return found;
    if (performance.now() > endMs) {
      throw new BelljarError("AGENT_FAILED", `no PCI device appeared at ${path.join("/")} in the guest`, {
        facts: { timeoutMs: guestDeviceLimits.appearTimeoutMs },
      });
    }
    await sleep(guestDeviceLimits.lookAgainMs);
  }
}

/** Its bus numbers are the guest's own affair: a hop is found by slot and function among the devices below the one before. */
async function findFunction(sysDir: string, [first = "", ...others]: PciPath): Promise<string | undefined> {
  let dir = join(sysDir, "devices/pci0000:00", first);
  if ((await list(dir)).length === 0) return undefined;
  for (const hop of others) {
    const name = (await list(dir)).find((each) => /^[0-9a-f]{4}:[0-9a-f]{2}:/.test(each) && each.endsWith(`:${hop}`));
    if (name === undefined) return undefined;
    dir = join(dir, name);
  }
  return dir;
}

/** Drivers make nodes one after the other: waits until none has come for a while. */
async function settled(look: () => Promise<DeviceNode[]>): Promise<DeviceNode[]> {
  const startMs = performance.now();
  let nodes = await look();
  let changedMs = startMs;
  for (;;) {
    const nowMs = performance.now();
    const quietMs = nodes.length === 0 ? guestDeviceLimits.noNodesMs : guestDeviceLimits.quietMs;
    if (nowMs - changedMs >= quietMs || nowMs - startMs >= guestDeviceLimits.appearTimeoutMs) return nodes;
    await sleep(guestDeviceLimits.lookAgainMs);
    const next = await look();
    if (next.length !== nodes.length) changedMs = performance.now();
    nodes = next;
  }
}

/** Every device below this one with a node of its own; other PCI functions below a bridge are not its own. */
async function nodesBelow(top: string): Promise<DeviceNode[]> {
  const nodes: DeviceNode[] = [];
  const waiting = [{ dir: top, depth: 0 }];
  for (let seen = 0; seen < guestDeviceLimits.directoriesMax; seen += 1) {
    const next = waiting.shift();
    if (next === undefined || nodes.length >= guestDeviceLimits.nodesMax) break;
    const { dir, depth } = next;
    for (const entry of await list(dir)) {
      if (entry === "dev") {
        const node = await readNode(dir);
        if (node !== undefined) nodes.push(node);
      }
      const isDeeper = depth < guestDeviceLimits.depthMax && !NOT_BELOW.has(entry);
      if (isDeeper && !/^[0-9a-f]{4}:[0-9a-f]{2}:/.test(entry))
        waiting.push({ dir: join(dir, entry), depth: depth + 1 });
    }
  }
  return nodes;
}

async function readNode(dir: string): Promise<DeviceNode | undefined> {
  const [numbers, uevent, subsystem] = await Promise.all([
    readFile(join(dir, "dev"), "utf8").catch(() => ""),
    readFile(join(dir, "uevent"), "utf8").catch(() => ""),
    readlink(join(dir, "subsystem")).catch(() => ""),
  ]);
  const [, major, minor] = /^(\d+):(\d+)$/m.exec(numbers) ?? [];
  const name = /^DEVNAME=([A-Za-z0-9_-][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)$/m.exec(uevent)?.[1];
  if (major === undefined || minor === undefined || name === undefined) return undefined;
  const type = basename(subsystem) === "block" ? "b" : "c";
  return { name, type, major: Number(major), minor: Number(minor) };
}

/** Directories and files below; a link is another device. Nothing for what is no directory, or has gone. */
async function list(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory() || entry.name === "dev").map((entry) => entry.name);
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
