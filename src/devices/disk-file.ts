/**
 * Disks as files: which format they have, and whether they are whole. Read here rather than by QEMU, since a guest that writes a
 * header into its raw disk must not be able to have it taken for another format, and since a qcow2 file may name other files of the
 * host, which whoever made it may not be allowed to read.
 */
import { open } from "node:fs/promises";
import { BelljarError } from "../base/index.ts";

export type DiskFormat = "raw" | "qcow2";

const SECTOR_BYTES = 512;
const HEADER_BYTES = 512;
const QCOW2_MAGIC = "QFI\xfb";
/** Formats that Belljar does not read, by their first bytes. */
const FOREIGN: readonly (readonly [name: string, at: number, magic: string])[] = [
  ["VMDK", 0, "KDMV"],
  ["VMDK", 0, "# Disk DescriptorFile"],
  ["VHDX", 0, "vhdxfile"],
  ["VHD", 0, "conectix"],
  ["VDI", 64, "\x7f\x10\xda\xbe"],
  ["QED", 0, "QED\0"],
];
/** Incompatible features: data in another file. */
const EXTERNAL_DATA = 1n << 2n;

/**
 * The format of a disk: the one that was said, once it is certain that it can be; else what its first bytes say.
 * @throws BelljarError `DISK_INVALID`
 */
export async function checkDiskFile(
  path: string,
  sizeBytes: number,
  wanted: DiskFormat | undefined,
): Promise<DiskFormat> {
  const invalid = (what: string, remedy?: string): BelljarError =>
    new BelljarError("DISK_INVALID", `${path} ${what}`, {
      facts: { path },
      ...(remedy === undefined ? {} : { remedy }),
    });
  if (sizeBytes === 0) throw invalid("is empty");
  const header = await readHeader(path);
  const isQcow2 = header.toString("latin1", 0, 4) === QCOW2_MAGIC;
  if (wanted === "qcow2" && !isQcow2) throw invalid("is not a qcow2 file");
  if (isQcow2 && wanted !== "raw") {
    checkQcow2(header, sizeBytes, invalid);
    return "qcow2";
  }
  if (wanted === undefined) {
    const foreign = FOREIGN.find(([, at, magic]) => header.toString("latin1", at, at + magic.length) === magic);
    if (foreign !== undefined) {
      const remedy = `Convert it: qemu-img convert -O qcow2 ${path} NEW, or name the format raw if it is none.`;
      throw invalid(`is a disk of the format ${foreign[0]}`, remedy);
    }
  }
  if (sizeBytes % SECTOR_BYTES !== 0) {
    throw invalid(`has ${sizeBytes} bytes, which is no whole number of sectors: it was cut short, or is no disk`);
  }
  return "raw";
}

function checkQcow2(header: Buffer, sizeBytes: number, invalid: (what: string, remedy?: string) => BelljarError): void {
  const version = header.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw invalid(`is a qcow2 file of the unknown version ${version}`);
  const flat = "Make one without: qemu-img convert -O qcow2 OLD NEW.";
  if (header.readBigUInt64BE(8) !== 0n) throw invalid("is a qcow2 file that lies over another file", flat);
  const features = version === 3 ? header.readBigUInt64BE(72) : 0n;
  if ((features & EXTERNAL_DATA) !== 0n) throw invalid("is a qcow2 file with its data in another file", flat);
  const clusterBits = header.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw invalid("is a damaged qcow2 file");
  const cluster = 1n << BigInt(clusterBits);
  const tables = [
    header.readBigUInt64BE(40) + BigInt(header.readUInt32BE(36)) * 8n,
    header.readBigUInt64BE(48) + BigInt(header.readUInt32BE(56)) * cluster,
  ];
  if (tables.some((end) => end > (BigInt(sizeBytes) / cluster + 1n) * cluster)) {
    throw invalid("is a qcow2 file that was cut short");
  }
}

async function readHeader(path: string): Promise<Buffer> {
  try {
    await using file = await open(path, "r");
    const header = Buffer.alloc(HEADER_BYTES);
    await file.read(header, 0, HEADER_BYTES, 0);
    return header;
  } catch (error) {
    throw BelljarError.from(error);
  }
}
