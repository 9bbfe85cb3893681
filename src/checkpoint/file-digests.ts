/**
 * Digests of files that never change, holes and all: the SHA-256 of the size and of every block of 64 KiB that is not zeros, each
 * after its number. How a file lies on disk makes no difference. A file that was read once is not read again by this process
 * unless its time of change says that it should be.
 */
import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { BelljarError, runTool } from "../base/index.ts";

const BLOCK_BYTES = 64 * 1024;
const CHUNK_BYTES = 16 * BLOCK_BYTES;
const UNIT_BYTES = 4096;
const zeros = Buffer.alloc(BLOCK_BYTES);
/** Digests that are remembered. */
const KNOWN_MAX = 10_000;

export class FileDigests {
  readonly #known = new Map<string, Promise<string>>();

  async digest(path: string, signal?: AbortSignal): Promise<string> {
    await using file = await open(path, "r");
    const { dev, ino, size, mtimeNs, blocks } = await file.stat({ bigint: true });
    const key = [dev, ino, size, mtimeNs].join(" ");
    const known = this.#known.get(key);
    if (known !== undefined) return await known;
    const isSparse = blocks * 512n < size;
    const made = read(file, path, Number(size), isSparse, signal);
    if (this.#known.size >= KNOWN_MAX) this.#known.clear();
    this.#known.set(key, made);
    made.catch(() => this.#known.delete(key));
    return await made;
  }
}

async function read(
  file: FileHandle,
  path: string,
  sizeBytes: number,
  isSparse: boolean,
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash("sha256");
  update(hash, sizeBytes);
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  const extents = (isSparse ? await findExtents(path, signal) : undefined) ?? [[0, sizeBytes]];
  let done = 0;
  for (const [from, to] of extents) {
    // Extents are of smaller units; a block that two of them touch is looked at once.
    for (let at = Math.max(done, from - (from % BLOCK_BYTES)); at < Math.min(to, sizeBytes); at = done) {
      signal?.throwIfAborted();
      const { bytesRead } = await readWhole(file, chunk, at, Math.min(chunk.length, roundUp(to) - at, sizeBytes - at));
      for (let block = 0; block < bytesRead; block += BLOCK_BYTES) {
        const data = chunk.subarray(block, Math.min(block + BLOCK_BYTES, bytesRead));
        if (data.equals(zeros.subarray(0, data.length))) continue;
        update(hash, (at + block) / BLOCK_BYTES);
        hash.update(data);
      }
      done = at + bytesRead;
    }
  }
  return hash.digest("hex");
}

async function readWhole(file: FileHandle, chunk: Buffer, at: number, wanted: number): Promise<{ bytesRead: number }> {
  let bytesRead = 0;
  while (bytesRead < wanted) {
    const { bytesRead: got } = await file.read(chunk, bytesRead, wanted - bytesRead, at + bytesRead);
    if (got === 0) throw new BelljarError("DISK_FAILED", "a file became shorter while it was read");
    bytesRead += got;
  }
  return { bytesRead };
}

/** Where there may be something else than zeros, in bytes; undefined where the file system does not say. */
async function findExtents(path: string, signal: AbortSignal | undefined): Promise<[number, number][] | undefined> {
  const found = await runTool("filefrag", ["-v", `-b${UNIT_BYTES}`, path], { signal }).catch(() => undefined);
  if (found === undefined) return undefined;
  const extents: [number, number][] = [];
  for (const [, first, last] of String(found.stdout).matchAll(/^ *\d+: +(\d+)\.\. *(\d+):/gm)) {
    extents.push([Number(first) * UNIT_BYTES, (Number(last) + 1) * UNIT_BYTES]);
  }
  return extents.sort(([one], [other]) => one - other);
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}

function update(hash: Hash, number: number): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(number));
  hash.update(bytes);
}
