/**
 * Overlays of disks: opened while the guest runs, put over its disks while it stands still. QEMU is the witness: whatever became of
 * whoever was doing this, its graph of nodes says which overlays are in use.
 */
import { BelljarError } from "../../base/index.ts";
import type { DiskOverlay } from "../interface.ts";
import { overlayFileNode, overlayNode, type PlacedDisk, topNode } from "./disk-arguments.ts";
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

/** The disks as QEMU has them, whoever has put overlays over them; what was opened and not used is closed. */
export async function findOverlays(qmp: QmpClient, disks: readonly PlacedDisk[]): Promise<readonly PlacedDisk[]> {
  const written = disks.filter(({ readOnly }) => !readOnly);
  if (written.length === 0) return disks;
  const files = await nodeFiles(qmp);
  const backings = await backingNodes(qmp);
  const found: PlacedDisk[] = [];
  for (const disk of disks) {
    let now: PlacedDisk = { ...disk, overlays: 0 };
    for (let number = 1; !disk.readOnly && files.has(overlayNode(disk, number)); number += 1) {
      const name = overlayNode(disk, number);
      if (backings.get(name) !== topNode(now)) {
        await qmp.execute("blockdev-del", { "node-name": name });
        break;
      }
      const path = files.get(overlayFileNode(disk, number));
      if (path === undefined) throw new BelljarError("VMM_PROTOCOL", `QEMU does not say which file ${name} is`);
      now = overlaid(now, path);
    }
    const { overlays = 0, ...rest } = now;
    found.push(overlays === 0 ? { ...rest, path: disk.path } : now);
  }
  return found;
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
