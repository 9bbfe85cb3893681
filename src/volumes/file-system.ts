/**
 * Which file system a disk has, by its superblock. Nothing is mounted on the host and no program of the host parses the disk:
 * what is on it may be a guest's work.
 */
import { open } from "node:fs/promises";
import { BelljarError, mountLimits } from "../base/index.ts";

interface Mark {
  readonly what: string;
  readonly at: number;
  readonly bytes: Buffer;
}

const mark = (what: string, at: number, bytes: string | readonly number[]): Mark => ({
  what,
  at,
  bytes: typeof bytes === "string" ? Buffer.from(bytes, "latin1") : Buffer.from(bytes),
});

/** What the guest's kernel mounts, by the name it has there. ext2 and ext3 are ext4 to it. */
const MOUNTABLE: readonly Mark[] = [
  mark("ext4", 1080, [0x53, 0xef]),
  mark("erofs", 1024, [0xe2, 0xe1, 0xf5, 0xe0]),
  mark("xfs", 0, "XFSB"),
  mark("btrfs", 65_600, "_BHRfS_M"),
  mark("squashfs", 0, "hsqs"),
];

/** Nothing can be written to these. */
export const READ_ONLY_FILE_SYSTEMS: ReadonlySet<string> = new Set(["erofs", "squashfs"]);

/** What is not mounted, in words. */
const OTHERS: readonly Mark[] = [
  mark("an ISO 9660 file system, which the guest's kernel does not have", 32_769, "CD001"),
  mark("a FAT file system, which the guest's kernel does not have", 82, "FAT32"),
  mark("a FAT file system, which the guest's kernel does not have", 54, "FAT1"),
  mark("an NTFS file system, which the guest's kernel does not have", 3, "NTFS"),
  mark("swap space", 4086, "SWAPSPACE2"),
  mark("LUKS encryption", 0, [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]),
  mark("LVM", 536, "LVM2"),
  mark("an image in the format qcow2: say so with format=qcow2", 0, [0x51, 0x46, 0x49, 0xfb]),
  mark("an image in the format VMDK", 0, "KDMV"),
  mark("an image in the format VHDX", 0, "vhdxfile"),
  mark("a partition table: name the partition", 512, "EFI PART"),
  mark("a partition table: name the partition", 510, [0x55, 0xaa]),
];

/** Of a raw disk. @throws BelljarError `FILE_SYSTEM_UNKNOWN`, or what reading failed with */
export async function detectFileSystem(path: string): Promise<string> {
  const start = await readStart(path);
  const found = MOUNTABLE.find((each) => has(start, each));
  if (found !== undefined) return found.what;
  const other = OTHERS.find((each) => has(start, each));
  const problem = other === undefined ? "no file system that is known" : other.what;
  throw new BelljarError("FILE_SYSTEM_UNKNOWN", `${path} has ${problem}`, {
    facts: { path },
    remedy: `Mount a disk with one of ${[...new Set(MOUNTABLE.map(({ what }) => what))].join(", ")}.`,
  });
}

/** @throws BelljarError `FILE_SYSTEM_UNKNOWN` for one that cannot be mounted */
export function checkFileSystem(name: string): string {
  if (name === "ext2" || name === "ext3") return "ext4";
  if (MOUNTABLE.some(({ what }) => what === name)) return name;
  throw new BelljarError(
    "FILE_SYSTEM_UNKNOWN",
    `the guest's kernel cannot mount a file system ${JSON.stringify(name)}`,
  );
}

/**
 * A qcow2 image that reads other files of the host is refused: whoever wrote it would choose which.
 * @throws BelljarError `INVALID_ARGUMENT`
 */
export async function checkQcow2(path: string): Promise<void> {
  const start = await readStart(path);
  const isQcow2 = start.length >= 104 && start.toString("latin1", 0, 3) === "QFI" && start.readUInt32BE(4) >= 2;
  if (!isQcow2) throw new BelljarError("INVALID_ARGUMENT", `${path} is not an image in the format qcow2`);
  const hasDataFile = start.readUInt32BE(4) >= 3 && (start.readBigUInt64BE(72) & 4n) !== 0n;
  if (start.readBigUInt64BE(8) === 0n && !hasDataFile) return;
  throw new BelljarError("INVALID_ARGUMENT", `${path} is based on another file, which Belljar does not open for it`, {
    remedy: "Make one image of both: `qemu-img convert`.",
  });
}

function has(start: Buffer, { at, bytes }: Mark): boolean {
  return start.subarray(at, at + bytes.length).equals(bytes);
}

async function readStart(path: string): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    const buffer = Buffer.alloc(mountLimits.superblockBytes);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
