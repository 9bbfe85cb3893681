/**
 * Makes one qcow2 image of several that lie over one another and that nobody writes to: what is in the uppermost that has a cluster, for
 * each cluster. Only images as we and QEMU make them for our disks are understood: version 3, no compression, no snapshots inside.
 * docs/interop/qcow2.txt of QEMU is the reference. Memory is bounded by one table of each layer.
 */
import { type FileHandle, open, rm } from "node:fs/promises";
import { BelljarError } from "../base/index.ts";
import { backingFields, CLUSTER_BITS, CLUSTER_BYTES, L2_REACH_BYTES } from "./qcow2.ts";

const ENTRIES = CLUSTER_BYTES / 8;
const OFFSET_MASK = 0x00fffffffffffe00n;
const COMPRESSED = 1n << 62n;
/** Of an entry of the second level: the cluster reads as zeros, whatever else it says. */
const ZERO = 1n;
/** Of an entry that this image alone refers to. */
const COPIED = 1n << 63n;
/** Clusters whose references one block counts, at 16 bits each. */
const COUNTED = CLUSTER_BYTES / 2;
const CHUNK_CLUSTERS = 16;

interface Layer {
  readonly path: string;
  readonly file: FileHandle;
  readonly sizeBytes: number;
  readonly l1: Buffer;
}

/** Where a cluster is: a layer and a place in it; `zeros` where it reads as zeros, and undefined where no layer has it. */
type Found = { readonly layer: Layer; readonly at: number } | "zeros" | undefined;

export interface JoinOptions {
  /** The uppermost first. */
  readonly layers: readonly string[];
  /** A new file. */
  readonly path: string;
  /** What the lowest lies over, by its name in the same directory. */
  readonly backingFile: string;
  readonly signal?: AbortSignal | undefined;
}

/** On an error there is no file. @throws BelljarError `DISK_INVALID`; what the file system failed with */
export async function joinImages({ layers: paths, path, backingFile, signal }: JoinOptions): Promise<void> {
  await using opened = new Layers();
  for (const each of paths) await opened.add(each);
  const [top] = opened.layers;
  if (top === undefined) throw new BelljarError("INTERNAL", "no images to join");
  const tables = Math.ceil(top.sizeBytes / L2_REACH_BYTES);
  const counts: number[] = [];
  for (let table = 0; table < tables; table += 1) {
    signal?.throwIfAborted();
    const found = await findClusters(opened.layers, table);
    counts.push(found === undefined ? -1 : found.filter((each) => typeof each === "object").length);
  }
  const used = counts.filter((count) => count >= 0).length;
  const place = placeParts(used + counts.reduce((sum, count) => sum + Math.max(0, count), 0));
  const out = await open(path, "wx", 0o600);
  try {
    await out.write(
      backingFields({ sizeBytes: top.sizeBytes, backingFile, backingFormat: "raw", ...place }),
      0,
      undefined,
      0,
    );
    await writeCounts(out, place);
    const l1 = Buffer.alloc(CLUSTER_BYTES);
    let next = place.first;
    for (let table = 0; table < tables; table += 1) {
      signal?.throwIfAborted();
      if ((counts[table] ?? -1) < 0) continue;
      const found = (await findClusters(opened.layers, table)) ?? [];
      l1.writeBigUInt64BE(BigInt(next * CLUSTER_BYTES) | COPIED, table * 8);
      next = await writeTable(out, found, next);
    }
    await out.write(l1, 0, undefined, place.l1 * CLUSTER_BYTES);
    await out.truncate(place.end * CLUSTER_BYTES);
    await out.sync();
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await out.close();
  }
}

class Layers implements AsyncDisposable {
  readonly layers: Layer[] = [];

  async add(path: string): Promise<void> {
    const file = await open(path, "r");
    try {
      this.layers.push(await readLayer(file, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { file } of this.layers) await file.close();
  }
}

async function readLayer(file: FileHandle, path: string): Promise<Layer> {
  const header = await read(file, path, 0, 104);
  const sizeBytes = Number(header.readBigUInt64BE(24));
  const l1Entries = header.readUInt32BE(36);
  const isOurs =
    header.toString("latin1", 0, 4) === "QFI\xfb" &&
    header.readUInt32BE(4) === 3 &&
    header.readUInt32BE(20) === CLUSTER_BITS &&
    // Encryption, snapshots inside, features that change what tables mean.
    header.readUInt32BE(32) === 0 &&
    header.readUInt32BE(60) === 0 &&
    header.readBigUInt64BE(72) === 0n &&
    l1Entries <= ENTRIES &&
    l1Entries >= Math.ceil(sizeBytes / L2_REACH_BYTES);
  if (!isOurs)
    throw new BelljarError("DISK_INVALID", `${path} is not an image that can be joined`, { facts: { path } });
  const l1 = await read(file, path, Number(header.readBigUInt64BE(40)), l1Entries * 8);
  return { path, file, sizeBytes, l1 };
}

/** For each cluster that a table maps; undefined when no layer has one of them. */
async function findClusters(layers: readonly Layer[], table: number): Promise<Found[] | undefined> {
  let found: Found[] | undefined;
  for (const layer of layers) {
    if ((table + 1) * 8 > layer.l1.length) continue;
    const at = Number(layer.l1.readBigUInt64BE(table * 8) & OFFSET_MASK);
    if (at === 0) continue;
    const l2 = await read(layer.file, layer.path, at, CLUSTER_BYTES);
    found ??= Array.from({ length: ENTRIES });
    for (let index = 0; index < ENTRIES; index += 1) {
      const entry = l2.readBigUInt64BE(index * 8);
      if (entry === 0n || found[index] !== undefined) continue;
      if ((entry & COMPRESSED) !== 0n) {
        throw new BelljarError("DISK_INVALID", `${layer.path} has compressed clusters`, {
          facts: { path: layer.path },
        });
      }
      const data = Number(entry & OFFSET_MASK);
      if ((entry & ZERO) !== 0n) found[index] = "zeros";
      else if (data !== 0) found[index] = { layer, at: data };
    }
  }
  return found?.some((each) => each !== undefined) === true ? found : undefined;
}

/** Its clusters from `first` on, then the table itself; answers the number of the next cluster. */
async function writeTable(out: FileHandle, found: readonly Found[], first: number): Promise<number> {
  const l2 = Buffer.alloc(CLUSTER_BYTES);
  let next = first + 1;
  for (let index = 0; index < found.length; ) {
    const cluster = found[index];
    if (typeof cluster !== "object") {
      if (cluster === "zeros") l2.writeBigUInt64BE(ZERO, index * 8);
      index += 1;
      continue;
    }
    let run = 1;
    while (run < CHUNK_CLUSTERS && follows(cluster, found[index + run], run)) run += 1;
    const data = await read(cluster.layer.file, cluster.layer.path, cluster.at, run * CLUSTER_BYTES);
    await out.write(data, 0, undefined, next * CLUSTER_BYTES);
    for (let each = 0; each < run; each += 1) {
      l2.writeBigUInt64BE(BigInt((next + each) * CLUSTER_BYTES) | COPIED, (index + each) * 8);
    }
    next += run;
    index += run;
  }
  await out.write(l2, 0, undefined, first * CLUSTER_BYTES);
  return next;
}

function follows(first: Exclude<Found, "zeros" | undefined>, other: Found, distance: number): boolean {
  if (typeof other !== "object" || other.layer !== first.layer) return false;
  return other.at === first.at + distance * CLUSTER_BYTES;
}

interface Places {
  readonly refcountTable: number;
  readonly refcounts: number;
  readonly l1: number;
  readonly first: number;
  readonly end: number;
}

/** Numbers of clusters: the header, one table of reference counts, its blocks, the first level, then tables and data. */
function placeParts(content: number): Places {
  let blocks = 1;
  while (blocks * COUNTED < 3 + blocks + content) blocks += 1;
  if (blocks > ENTRIES) throw new BelljarError("DISK_INVALID", "the images are too large to be joined");
  const l1 = 2 + blocks;
  return { refcountTable: 1, refcounts: 2, l1, first: l1 + 1, end: l1 + 1 + content };
}

async function writeCounts(out: FileHandle, { refcountTable, refcounts, l1, end }: Places): Promise<void> {
  const table = Buffer.alloc(CLUSTER_BYTES);
  for (let block = 0; refcounts + block < l1; block += 1) {
    table.writeBigUInt64BE(BigInt((refcounts + block) * CLUSTER_BYTES), block * 8);
    const counts = Buffer.alloc(CLUSTER_BYTES);
    const counted = Math.min(COUNTED, end - block * COUNTED);
    for (let cluster = 0; cluster < counted; cluster += 1) counts.writeUInt16BE(1, cluster * 2);
    await out.write(counts, 0, undefined, (refcounts + block) * CLUSTER_BYTES);
  }
  await out.write(table, 0, undefined, refcountTable * CLUSTER_BYTES);
}

/** A file may end within its last cluster: the rest is zeros. */
async function read(file: FileHandle, path: string, at: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  for (let got = 0; got < bytes; ) {
    const { bytesRead } = await file.read(buffer, got, bytes - got, at + got);
    if (bytesRead > 0) got += bytesRead;
    else if (got > 0) break;
    else throw new BelljarError("DISK_INVALID", `${path} is cut short`, { facts: { path } });
  }
  return buffer;
}
