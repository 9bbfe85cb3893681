/** Where QEMU has its guest's memory: asked of QEMU, since memory without a file has no name in /proc. */
import { BelljarError } from "../../base/index.ts";
import type { MemoryBlock } from "../interface.ts";
import { GROWTH_DEVICE, type GrowthLine, growthRangeMib } from "./growth-arguments.ts";
import type { QmpClient } from "./qmp.ts";

const MIB = 1024 * 1024;

/**
 * Main memory is one block, wherever the chipset has the guest see its parts; what the VM can grow by is another.
 * @throws BelljarError `VMM_PROTOCOL`
 */
export async function findMemoryBlocks(qmp: QmpClient, line: GrowthLine): Promise<readonly MemoryBlock[]> {
  const ram: MemoryBlock = {
    name: "ram",
    address: await hostAddress(qmp, 0),
    sizeBytes: line.memoryMib * MIB,
    isUnused: false,
  };
  const growthMib = growthRangeMib(line);
  if (growthMib === 0) return [ram];
  const devices = await qmp.execute("query-memory-devices");
  const at = devices
    .array((device) => ({
      id: device.field("data").field("id").string(),
      address: device.field("data").field("memaddr").integer({ min: 0 }),
      sizeBytes: device.field("data").field("size").integer({ min: 0 }),
      requestedBytes: device.field("data").field("requested-size").integer({ min: 0 }),
    }))
    .find(({ id }) => id === GROWTH_DEVICE);
  if (at === undefined) throw new BelljarError("VMM_PROTOCOL", "QEMU does not know the memory that it can grow by");
  const isUnused = at.sizeBytes === 0 && at.requestedBytes === 0;
  return [ram, { name: "growth", address: await hostAddress(qmp, at.address), sizeBytes: growthMib * MIB, isUnused }];
}

async function hostAddress(qmp: QmpClient, guestAddress: number): Promise<number> {
  const command = `gpa2hva 0x${guestAddress.toString(16)}`;
  const answer = await qmp.execute("human-monitor-command", { "command-line": command });
  const text = answer.string({ maxLength: 4_096 });
  const address = Number(/ is (0x[0-9a-f]+)\s*$/.exec(text)?.[1]);
  if (Number.isSafeInteger(address) && address > 0 && address % 4096 === 0) return address;
  throw new BelljarError("VMM_PROTOCOL", `QEMU does not say where the guest's memory is: ${text.trim().slice(0, 200)}`);
}
