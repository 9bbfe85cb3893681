/**
 * Which pages of a guest's memory a checkpoint holds: for each block, runs of neighbouring pages in ascending order. `pages.img` has
 * their bytes one after the other, `pages_meta.img` this list: magic, version, page size, blocks, runs, and a SHA-256 over all that.
 */
import { createHash } from "node:crypto";
import { BelljarError, checkpointLimits } from "../../base/index.ts";
import type { MemoryBlock } from "../../hypervisor/interface.ts";

export const PAGE_BYTES = 4096;

/** Pairs: number of the first page in the block, number of pages. */
export type PageRuns = Uint32Array;

export interface BlockPages {
  readonly name: MemoryBlock["name"];
  readonly sizeBytes: number;
  readonly runs: PageRuns;
}

const MAGIC = Buffer.from("BLJRPAGE");
const VERSION = 1;
const HEADER_BYTES = 24;
const BLOCK_BYTES = 24;
const DIGEST_BYTES = 32;
const names = ["ram", "growth"] as const;

export function countPages(blocks: readonly Pick<BlockPages, "runs">[]): number {
  let pages = 0;
  for (const { runs } of blocks) for (let at = 1; at < runs.length; at += 2) pages += runs[at] ?? 0;
  return pages;
}

export function encodePages(blocks: readonly BlockPages[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(PAGE_BYTES, 12);
  header.writeUInt32LE(blocks.length, 16);
  const parts: Uint8Array[] = [header];
  for (const { name, sizeBytes, runs } of blocks) {
    const head = Buffer.alloc(BLOCK_BYTES);
    head.writeUInt32LE(names.indexOf(name), 0);
    head.writeUInt32LE(runs.length / 2, 4);
    head.writeBigUInt64LE(BigInt(sizeBytes), 8);
    parts.push(head, Buffer.from(runs.buffer, runs.byteOffset, runs.byteLength));
  }
  const data = Buffer.concat(parts);
  return Buffer.concat([data, createHash("sha256").update(data).digest()]);
}

/** @throws BelljarError `CHECKPOINT_CORRUPT`, `CHECKPOINT_MISMATCH` for a version that this program does not know */
export function decodePages(data: Buffer, path: string): BlockPages[] {
  const corrupt = (why: string): BelljarError =>
    new BelljarError("CHECKPOINT_CORRUPT", `${path} is damaged: ${why}`, { facts: { path } });
  if (data.length < HEADER_BYTES + DIGEST_BYTES || !data.subarray(0, 8).equals(MAGIC))
    throw corrupt("no list of pages");
  const body = data.subarray(0, -DIGEST_BYTES);
  if (!createHash("sha256").update(body).digest().equals(data.subarray(-DIGEST_BYTES))) throw corrupt("bad checksum");
  const version = body.readUInt32LE(8);
  if (version !== VERSION || body.readUInt32LE(12) !== PAGE_BYTES) {
    throw new BelljarError("CHECKPOINT_MISMATCH", `${path} has version ${version}, and pages of another size perhaps`);
  }
  const count = body.readUInt32LE(16);
  if (count > names.length) throw corrupt("too many blocks of memory");
  const blocks: BlockPages[] = [];
  let at = HEADER_BYTES;
  for (let index = 0; index < count; index += 1) {
    if (at + BLOCK_BYTES > body.length) throw corrupt("cut short");
    const name = names[body.readUInt32LE(at)];
    const words = body.readUInt32LE(at + 4) * 2;
    const sizeBytes = Number(body.readBigUInt64LE(at + 8));
    at += BLOCK_BYTES;
    if (name === undefined || sizeBytes > checkpointLimits.memoryMaxBytes) throw corrupt("no such block of memory");
    if (at + words * 4 > body.length) throw corrupt("cut short");
    const runs = new Uint32Array(words);
    for (let word = 0; word < words; word += 1) runs[word] = body.readUInt32LE(at + word * 4);
    at += words * 4;
    checkRuns(runs, sizeBytes, corrupt);
    blocks.push({ name, sizeBytes, runs });
  }
  if (at !== body.length) throw corrupt("something follows the list of pages");
  return blocks;
}

function checkRuns(runs: PageRuns, sizeBytes: number, corrupt: (why: string) => BelljarError): void {
  let end = 0;
  for (let at = 0; at < runs.length; at += 2) {
    const first = runs[at] ?? 0;
    const pages = runs[at + 1] ?? 0;
    if (first < end || pages === 0) throw corrupt("pages out of order");
    end = first + pages;
  }
  if (end * PAGE_BYTES > sizeBytes) throw corrupt("pages outside of the guest's memory");
}
