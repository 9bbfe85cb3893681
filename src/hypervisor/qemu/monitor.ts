/** The QMP commands that Belljar uses, with their answers decoded. Anything else about QMP is in `qmp.ts`. */
import { BelljarError } from "../../base/index.ts";
import { blockNode, deviceId, diskDevice, nodeName, type PlacedDisk } from "./disk-arguments.ts";
import type { QmpClient, QmpOptions } from "./qmp.ts";

export interface RunStatus {
  readonly running: boolean;
  /** QEMU's own word: `running`, `paused`, `prelaunch`, `internal-error`, ... */
  readonly word: string;
}

export async function queryStatus(qmp: QmpClient, options: QmpOptions = {}): Promise<RunStatus> {
  const answer = await qmp.execute("query-status", {}, options);
  return { running: answer.field("running").boolean(), word: answer.field("status").string({ maxLength: 64 }) };
}

export async function queryVcpuThreads(qmp: QmpClient): Promise<number[]> {
  const answer = await qmp.execute("query-cpus-fast");
  return answer.array((cpu) => cpu.field("thread-id").integer({ min: 1 }));
}

/** Why the VM's state cannot be saved; empty when it can. */
export async function queryBlockedReasons(qmp: QmpClient): Promise<string[]> {
  const answer = await qmp.execute("query-migrate");
  return answer.field("blocked-reasons").optional((field) => field.array((reason) => reason.string())) ?? [];
}

/** Adds a disk, or changes nothing. */
export async function addDisk(qmp: QmpClient, disk: PlacedDisk): Promise<void> {
  await qmp.execute("blockdev-add", blockNode(disk));
  try {
    await qmp.execute("device_add", diskDevice(disk));
  } catch (error) {
    await qmp.execute("blockdev-del", { "node-name": nodeName(disk.serial) });
    throw error;
  }
}

/**
 * Takes a disk away, as far as it is there: whoever was adding or removing it may have died half-way. Resolves when the guest has
 * let go of it and the file is closed.
 */
export async function removeDisk(qmp: QmpClient, serial: string, timeoutMs: number): Promise<void> {
  const id = deviceId(serial);
  const { promise: deleted, resolve } = Promise.withResolvers<void>();
  const stop = qmp.onEvent((event) => {
    if (event.name !== "DEVICE_DELETED") return;
    if (event.data.field("device").optional((field) => field.string()) === id) resolve();
  });
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(
      new BelljarError("DEADLINE_EXCEEDED", `the guest did not let go of the disk ${serial} within ${timeoutMs} ms`, {
        facts: { serial, timeoutMs },
      }),
    );
  }, timeoutMs);
  try {
    await qmp.execute("device_del", { id });
    // The connection's end is the third way out: without it a VMM that dies here would hold us until the deadline.
    const gone = qmp.closed.then((error) => {
      throw error ?? new BelljarError("VMM_DIED", `QEMU ended while the disk ${serial} was being removed`);
    });
    await Promise.race([deleted, late, gone]);
  } catch (error) {
    if (!(error instanceof BelljarError) || error.facts["qmpClass"] !== "DeviceNotFound") throw error;
  } finally {
    clearTimeout(timer);
    stop();
  }
  await removeBlockNode(qmp, nodeName(serial));
}

async function removeBlockNode(qmp: QmpClient, name: string): Promise<void> {
  try {
    await qmp.execute("blockdev-del", { "node-name": name });
  } catch (error) {
    // QEMU has no error class of its own for a node that is not there.
    const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
    const names = nodes.array((node) => node.field("node-name").optional((field) => field.string()));
    if (names.includes(name)) throw error;
  }
}
