/**
 * Writes an empty qcow2 image that lies over another file, as QEMU's docs/interop/qcow2.txt has it. Written here because it is four
 * small tables, and a program for it takes longer than all else that a container's disk needs.
 */
import { open } from "node:fs/promises";
import { BelljarError } from "../base/index.ts";

export interface OverlayOptions {
  readonly path: string;
  readonly sizeBytes: number;
  /** As the image says it: relative to the directory that the image is in. */
  readonly backingFile: string;
  readonly backingFormat: "raw" | "qcow2";
}

export const CLUSTER_BITS = 16;
export const CLUSTER_BYTES = 2 ** CLUSTER_BITS;
/** What one table of the second level maps: as many clusters as it has entries of 8 bytes. */
export const L2_REACH_BYTES = (CLUSTER_BYTES / 8) * CLUSTER_BYTES;
const HEADER_BYTES = 104;
/** One cluster of the first level. */
export const QCOW2_MAX_BYTES = (CLUSTER_BYTES / 8) * L2_REACH_BYTES;
const BACKING_FORMAT = 0xe2792aca;
/** Number of the cluster in which each part stands; each fits into one. */
const CLUSTER = { header: 0, refcountTable: 1, refcounts: 2, l1: 3, end: 4 } as const;

/** @throws BelljarError `INVALID_ARGUMENT` for a size that it cannot have; what the file system failed with */
export async function writeOverlay(options: OverlayOptions): Promise<void> {
  const { path, sizeBytes } = options;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % 512 !== 0 || sizeBytes > QCOW2_MAX_BYTES) {
    throw new BelljarError("INVALID_ARGUMENT", `a disk cannot have ${sizeBytes} bytes`, {
      facts: { sizeBytes, maxBytes: QCOW2_MAX_BYTES },
    });
  }
  const file = await open(path, "wx", 0o600);
  try {
    await file.write(backingFields({ ...options, ...CLUSTER }), 0, undefined, 0);
    await file.write(uint64(CLUSTER.refcounts * CLUSTER_BYTES), 0, undefined, CLUSTER.refcountTable * CLUSTER_BYTES);
    const refcounts = Buffer.alloc(CLUSTER.end * 2);
    for (let cluster = 0; cluster < CLUSTER.end; cluster += 1) refcounts.writeUInt16BE(1, cluster * 2);
    await file.write(refcounts, 0, undefined, CLUSTER.refcounts * CLUSTER_BYTES);
    // The first level is all zeros: nothing is in this image yet.
    await file.truncate(CLUSTER.end * CLUSTER_BYTES);
  } finally {
    await file.close();
  }
}

/** The header, and what follows it; the first level is one cluster. Places are numbers of clusters. */
export function backingFields({
  sizeBytes,
  backingFile,
  backingFormat,
  ...place
}: Omit<OverlayOptions, "path"> & {
  readonly l1: number;
  readonly refcountTable: number;
}): Buffer {
  const name = Buffer.from(backingFile);
  const format = Buffer.from(backingFormat);
  const paddedFormat = Math.ceil(format.length / 8) * 8;
  // After the header: the backing file's format, the end of extensions, the backing file's name.
  const nameOffset = HEADER_BYTES + 8 + paddedFormat + 8;
  const data = Buffer.alloc(nameOffset + name.length);
  data.write("QFI\xfb", 0, "latin1");
  data.writeUInt32BE(3, 4);
  data.writeBigUInt64BE(BigInt(nameOffset), 8);
  data.writeUInt32BE(name.length, 16);
  data.writeUInt32BE(CLUSTER_BITS, 20);
  data.writeBigUInt64BE(BigInt(sizeBytes), 24);
  data.writeUInt32BE(Math.ceil(sizeBytes / L2_REACH_BYTES), 36);
  data.writeBigUInt64BE(BigInt(place.l1 * CLUSTER_BYTES), 40);
  data.writeBigUInt64BE(BigInt(place.refcountTable * CLUSTER_BYTES), 48);
  data.writeUInt32BE(1, 56);
  // Reference counts of 2 to the 4th bits.
  data.writeUInt32BE(4, 96);
  data.writeUInt32BE(HEADER_BYTES, 100);
  data.writeUInt32BE(BACKING_FORMAT, HEADER_BYTES);
  data.writeUInt32BE(format.length, HEADER_BYTES + 4);
  format.copy(data, HEADER_BYTES + 8);
  name.copy(data, nameOffset);
  return data;
}

function uint64(value: number): Buffer {
  const data = Buffer.alloc(8);
  data.writeBigUInt64BE(BigInt(value));
  return data;
}
