/**
 * Overlays of disks: opened while the guest runs, put over its disks while it stands still. QEMU is the witness: whatever became of
 * whoever was doing this, its graph of nodes says which overlays are in use.
 */
import { BelljarError } from "../../base/index.ts";
import type { DiskOverlay } from "../interface.ts";
import { bottomNode, joinedNode, overlayFileNode, overlayNode, type PlacedDisk, topNode } from "./disk-arguments.ts";
import type { QmpClient } from "./qmp.ts";

export async function openOverlay(qmp: QmpClient, disk: PlacedDisk, { path }: DiskOverlay): Promise<void> {
  const number = (disk.overlays ?? 0) + 1;
  const cache = { direct: disk.cache?.direct === true, "no-flush": disk.cache?.noFlush === true };
  const shared = { discard: "unmap", cache };
  await qmp.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": overlayNode(disk, number),
    ...shared,
    file: { driver: "file", "node-name": overlayFileNode(disk, number), filename: path, ...shared },
    // What it lies over is open already, and is put under it when the time has come.
    backing: null,
  });
}

/** One that is not there is closed. */
export async function closeOverlay(qmp: QmpClient, disk: PlacedDisk): Promise<void> {
  const name = overlayNode(disk, (disk.overlays ?? 0) + 1);
  const nodes = await nodeFiles(qmp);
  if (nodes.has(name)) await qmp.execute("blockdev-del", { "node-name": name });
}

/** All of them at once. */
export async function useOverlays(qmp: QmpClient, disks: readonly PlacedDisk[]): Promise<void> {
  if (disks.length === 0) return;
  await qmp.execute("transaction", {
    actions: disks.map((disk) => ({
      type: "blockdev-snapshot",
      data: { node: topNode(disk), overlay: overlayNode(disk, (disk.overlays ?? 0) + 1) },
    })),
  });
}

/** The disk as it is once its opened overlay is used. */
export function overlaid<T extends PlacedDisk>(disk: T, path: string): T {
  const { isHostDevice: _, ...rest } = disk;
  return { ...rest, path, format: "qcow2", overlays: (disk.overlays ?? 0) + 1 } as T;
}

/** The written-to node lies over this file from now on, which says what those below it said; they are closed. */
export async function useJoined(qmp: QmpClient, disk: PlacedDisk, path: string): Promise<void> {
  const number = disk.overlays ?? 0;
  const cache = { direct: disk.cache?.direct === true, "no-flush": disk.cache?.noFlush === true };
  const shared = { discard: "unmap", cache };
  const joined = joinedNode(disk, number);
  await qmp.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": joined,
    "read-only": true,
    ...shared,
    file: { driver: "file", filename: path, "read-only": true, ...shared },
  });
  try {
    const file = overlayFileNode(disk, number);
    const top = { driver: "qcow2", "node-name": topNode(disk), "read-only": false, ...shared, file, backing: joined };
    await qmp.execute("blockdev-reopen", { options: [top] });
  } catch (error) {
    await qmp.execute("blockdev-del", { "node-name": joined });
    throw error;
  }
  await closeUnused(qmp, { ...disk, joined: number });
}

/** Nodes of the disk that its written-to node does not lie over. */
async function closeUnused(qmp: QmpClient, disk: PlacedDisk): Promise<void> {
  const [names, backings] = [await nodeFiles(qmp), await backingNodes(qmp)];
  const used = new Set<string>();
  for (let at: string | undefined = topNode(disk); at !== undefined; at = backings.get(at)) used.add(at);
  const own = [...names.keys()].filter((name) => name === bottomNode(disk) || isNumbered(disk, name));
  const unused = own.filter((name) => !used.has(name));
  // None before those that lie over it.
  while (unused.length > 0) {
    const free = unused.findIndex((name) => !unused.some((other) => backings.get(other) === name));
    const [name] = unused.splice(Math.max(0, free), 1);
    if (name !== undefined) await qmp.execute("blockdev-del", { "node-name": name });
  }
}

function isNumbered(disk: PlacedDisk, name: string): boolean {
  const bottom = bottomNode(disk);
  return name.startsWith(`${bottom}-`) && /^j?\d+$/.test(name.slice(bottom.length + 1));
}

/** The disks as QEMU has them, whoever has put overlays over them; what was opened and not used is closed. */
export async function findOverlays(qmp: QmpClient, disks: readonly PlacedDisk[]): Promise<readonly PlacedDisk[]> {
  const written = disks.filter(({ readOnly }) => !readOnly);
  if (written.length === 0) return disks;
  const files = await nodeFiles(qmp);
  const backings = await backingNodes(qmp);
  const found: PlacedDisk[] = [];
  for (const disk of disks) {
    if (disk.readOnly) {
      found.push(disk);
      continue;
    }
    const { overlays: _, joined: __, ...rest } = disk;
    const numbers = [...files.keys()].filter((name) => isNumbered(disk, name)).map((name) => numberOf(disk, name));
    // One that lies over nothing was opened and not used.
    const number = Math.max(0, ...numbers.filter((each) => backings.has(overlayNode(disk, each))));
    let now: PlacedDisk = rest;
    if (number > 0) {
      const path = files.get(overlayFileNode(disk, number));
      if (path === undefined) {
        throw new BelljarError("VMM_PROTOCOL", `QEMU does not say which file ${overlayNode(disk, number)} is`);
      }
      now = { ...overlaid(rest, path), overlays: number };
      const joined = joinedBelow(now, backings);
      if (joined !== undefined) now = { ...now, joined };
    }
    await closeUnused(qmp, now);
    found.push(now);
  }
  return found;
}

function numberOf(disk: PlacedDisk, name: string): number {
  return Number(name.slice(bottomNode(disk).length + 1).replace("j", ""));
}

function joinedBelow(disk: PlacedDisk, backings: ReadonlyMap<string, string>): number | undefined {
  for (let at: string | undefined = topNode(disk); at !== undefined; at = backings.get(at)) {
    if (at.startsWith(`${bottomNode(disk)}-j`)) return numberOf(disk, at);
  }
  return undefined;
}

/** The files of all nodes that have a name. */
async function nodeFiles(qmp: QmpClient): Promise<ReadonlyMap<string, string>> {
  const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
  return new Map(
    nodes
      .array((node) => ({
        name: node.field("node-name").optional((field) => field.string()) ?? "",
        file: node.field("file").string({ maxLength: 65_536 }),
      }))
      .map(({ name, file }) => [name, file]),
  );
}

/** For each node that lies over another one, the name of that one. */
async function backingNodes(qmp: QmpClient): Promise<ReadonlyMap<string, string>> {
  const graph = await qmp.execute("x-debug-query-block-graph");
  const names = new Map(
    graph
      .field("nodes")
      .array((node) => ({ id: node.field("id").integer(), name: node.field("name").string() }))
      .map(({ id, name }) => [id, name]),
  );
  const edges = graph.field("edges").array((edge) => ({
    parent: edge.field("parent").integer(),
    child: edge.field("child").integer(),
    name: edge.field("name").string(),
  }));
  return new Map(
    edges
      .filter(({ name }) => name === "backing")
      .map(({ parent, child }) => [names.get(parent) ?? "", names.get(child) ?? ""]),
  );
}
