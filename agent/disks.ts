/** Disks of the guest, found by the serial numbers that the host plugged them with. */
import { readdirSync, readFileSync } from "node:fs";
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { sandboxLimits } from "../src/base/limits.ts";
import { NodeChanges } from "./node-changes.ts";

export interface DiskDirs {
  readonly sysDir: string;
  readonly devDir: string;
}

/** Between two looks at a disk that has just grown. */
const LOOK_AGAIN_MS = 10;
/** Between two looks for a disk of which nothing is seen yet. The kernel says when there is a new one: this is for what it does not say. */
const LOOK_ANYWAY_MS = 50;
/** And for so long after it said so: a disk can be opened a little later than its node is there. */
const SETTLING_MS = 200;
const LOOK_SETTLING_MS = 3;
/** A disk that was not seen for so long is looked for by the kernel itself, which may have missed it, or its number; later ever less often. */
const ASK_KERNEL_MS = 1_000;
/** For so long a disk that was seen to be another one is not looked at again. */
const FORGET_MS = 1_000;
const SERIAL = /^[a-z0-9-]{1,20}$/;
/** Unit of a disk's size in sysfs, whatever its own sectors are. */
const SECTOR_BYTES = 512;

/**
 * The device node of the disk with this serial number; waits for one that has just been plugged.
 * @throws BelljarError `AGENT_FAILED`, `INVALID_ARGUMENT`
 */
export async function findDisk(serial: string, dirs: DiskDirs, timeoutMs?: number): Promise<string> {
  const [node = ""] = await findDisks([serial], dirs, timeoutMs);
  return node;
}

/** As `findDisk`, for many at once: each disk of the guest is asked once for its number. */
export async function findDisks(
  serials: readonly string[],
  dirs: DiskDirs,
  timeoutMs: number = sandboxLimits.diskTimeoutMs,
): Promise<readonly string[]> {
  if (!serials.every((serial) => SERIAL.test(serial))) {
    throw new BelljarError("INVALID_ARGUMENT", "a disk has a serial number that no disk can have");
  }
  let deadlineMs = performance.now() + timeoutMs;
  let found = 0;
  let others = new Set<string>();
  let forgetMs = performance.now() + FORGET_MS;
  let settledMs = 0;
  let waitMs = ASK_KERNEL_MS;
  let askMs = performance.now() + waitMs;
  let changes: NodeChanges | undefined;
  using _watch = { [Symbol.dispose]: () => changes?.close() };
  for (;;) {
    // A name may be given to another disk; but to look at hundreds of disks again and again takes long.
    if (performance.now() > forgetMs) {
      others = new Set();
      forgetMs = performance.now() + FORGET_MS;
    }
    const present = await presentDisks(new Set(serials), dirs, others);
    // Of many, each has the time: the guest takes them in one after the other.
    if (present.size > found) deadlineMs = performance.now() + timeoutMs;
    found = present.size;
    const missing = serials.filter((serial) => !present.has(serial));
    if (missing.length === 0) return serials.map((serial) => present.get(serial) ?? "");
    if (performance.now() >= deadlineMs) {
      throw new BelljarError(
        "AGENT_FAILED",
        `no disk with the serial number ${missing[0]} appeared within ${timeoutMs} ms`,
      );
    }
    if (performance.now() > askMs) {
      await askKernel(dirs);
      waitMs *= 2;
      askMs = performance.now() + waitMs;
    }
    // Once more after the watch has begun: one may have come in between.
    if (changes === undefined) changes = new NodeChanges(dirs.devDir);
    else if (await changes.next(performance.now() < settledMs ? LOOK_SETTLING_MS : LOOK_ANYWAY_MS)) {
      settledMs = performance.now() + SETTLING_MS;
    }
  }
}

/** All that is on its SCSI buses, and what each disk says of itself. */
async function askKernel({ sysDir }: DiskDirs): Promise<void> {
  const entries = (dir: string): readonly string[] => {
    try {
      return readdirSync(join(sysDir, dir));
    } catch {
      return [];
    }
  };
  for (const host of entries("class/scsi_host")) {
    await writeFile(join(sysDir, "class/scsi_host", host, "scan"), "- - -").catch(() => {});
  }
  for (const name of entries("block")) {
    if (/^sd[a-z]+$/.test(name)) await writeFile(join(sysDir, "block", name, "device/rescan"), "1").catch(() => {});
  }
}

/**
 * Waits until the kernel knows that a disk has grown to this size at least.
 * @throws BelljarError `AGENT_FAILED` when it does not in time
 */
export async function waitForSize(node: string, sizeBytes: number, dirs: DiskDirs): Promise<void> {
  const dir = join(dirs.sysDir, "block", node.slice(node.lastIndexOf("/") + 1));
  const deadlineMs = performance.now() + sandboxLimits.diskTimeoutMs;
  for (;;) {
    const sectors = Number((await readFile(join(dir, "size"), "latin1")).trim());
    if (sectors * SECTOR_BYTES >= sizeBytes) return;
    if (performance.now() >= deadlineMs) {
      throw new BelljarError("AGENT_FAILED", `the guest's kernel does not see that the disk ${node} has grown`);
    }
    // A SCSI disk must be asked; others say it by themselves.
    await writeFile(join(dir, "device/rescan"), "1").catch(() => {});
    await sleep(LOOK_AGAIN_MS);
  }
}

/**
 * Device nodes by serial number, of those that are wanted and can be opened.
 * @param others names of disks that were seen to be other ones; those that are found to be are added
 */
async function presentDisks(
  wanted: ReadonlySet<string>,
  dirs: DiskDirs,
  others: Set<string>,
): Promise<ReadonlyMap<string, string>> {
  const present = new Map<string, string>();
  const names = readdirSync(join(dirs.sysDir, "block"));
  // The disk that came last mostly has the last name.
  names.sort((one, other) => other.length - one.length || (one < other ? 1 : -1));
  for (const name of names) {
    if (present.size === wanted.size) break;
    if (!/^(sd|vd)[a-z]+$/.test(name) || others.has(name)) continue;
    const serial = serialOf(join(dirs.sysDir, "block", name));
    if (!wanted.has(serial)) {
      if (serial !== "") others.add(name);
      continue;
    }
    const node = join(dirs.devDir, name);
    // One that is just being plugged or unplugged has a node already, or still, behind which there is no disk.
    const file = await open(node, "r").catch(() => undefined);
    await file?.close();
    if (file !== undefined) present.set(serial, node);
  }
  return present;
}

/**
 * SCSI: page 0x80, whose header has four bytes. virtio-blk: an attribute. Read at once: the kernel has both in memory, and to wait for
 * a thread for each of hundreds of disks takes seconds in an emulated guest.
 */
function serialOf(dir: string): string {
  const page = bytesNow(join(dir, "device/vpd_pg80"));
  return (page?.toString("latin1", 4) ?? bytesNow(join(dir, "serial"))?.toString("latin1") ?? "").trim();
}

function bytesNow(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
