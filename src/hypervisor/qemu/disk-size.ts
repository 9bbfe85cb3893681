/** A disk grows while the guest uses it. */
import { BelljarError } from "../../base/index.ts";
import { type PlacedDisk, topNode } from "./disk-arguments.ts";
import type { QmpClient } from "./qmp.ts";

/** Makes the disk this large; one that is so large already is success. It never shrinks. */
export async function growDisk(qmp: QmpClient, disk: PlacedDisk, sizeBytes: number): Promise<void> {
  const name = topNode(disk);
  const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
  const sizes = nodes.array((node) => ({
    name: node.field("node-name").optional((field) => field.string()),
    sizeBytes: node.field("image").field("virtual-size").integer({ min: 0 }),
  }));
  const found = sizes.find((node) => node.name === name);
  if (found === undefined) throw new BelljarError("INTERNAL", `QEMU has no disk ${disk.serial}`);
  if (found.sizeBytes < sizeBytes) await qmp.execute("block_resize", { "node-name": name, size: sizeBytes });
}
