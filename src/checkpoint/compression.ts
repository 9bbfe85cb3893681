/**
 * Files of checkpoints packed with Zstandard, for those who would rather wait than have them lie there whole. Written and read as streams:
 * memory is bounded whatever their size, and who reads says how much may come out.
 */
import { createReadStream, createWriteStream } from "node:fs";
import { open, rm } from "node:fs/promises";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress, createZstdDecompress } from "node:zlib";
import { BelljarError, hasErrno } from "../base/index.ts";

const MAGIC = Buffer.of(0x28, 0xb5, 0x2f, 0xfd);
/** Quick rather than small: the better levels take many times as long for some percent. */
const LEVEL = 1;

/** Into a new file, which is on disk then. On an error there is none. @throws BelljarError `DISK_FULL` */
export async function packFile(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const params = { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 };
  await written(to, async () => {
    const out = createWriteStream(to, { flags: "wx", mode: 0o600, flush: true });
    await pipeline(createReadStream(from), createZstdCompress({ params }), out, { signal });
  });
}

/** Into a new file. On an error there is none. @throws BelljarError `CHECKPOINT_CORRUPT` also when more comes out, `DISK_FULL` */
export async function unpackFile(from: string, to: string, maxBytes: number, signal?: AbortSignal): Promise<void> {
  let bytes = 0;
  const bounded = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      if (bytes <= maxBytes) done(null, chunk);
      else done(new BelljarError("CHECKPOINT_CORRUPT", `${from} is damaged: more than ${maxBytes} bytes are in it`));
    },
  });
  await written(to, async () => {
    const out = createWriteStream(to, { flags: "wx", mode: 0o600 });
    try {
      await pipeline(createReadStream(from), createZstdDecompress(), bounded, out, { signal });
    } catch (error) {
      if (!(error instanceof Error) || !("code" in error) || !/^Z(STD)?_/.test(String(error.code))) throw error;
      throw new BelljarError("CHECKPOINT_CORRUPT", `${from} is damaged: ${error.message}`, { cause: error });
    }
  });
}

/** What cannot be read is not: whoever reads on says why. */
export async function isPacked(path: string): Promise<boolean> {
  await using file = await open(path, "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAGIC.length), 0, MAGIC.length, 0);
    return bytesRead === MAGIC.length && buffer.equals(MAGIC);
  } catch (error) {
    if (hasErrno(error, "EISDIR")) return false;
    throw error;
  }
}

async function written(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    await rm(path, { force: true });
    if (!hasErrno(error, "ENOSPC") && !hasErrno(error, "EDQUOT")) throw error;
    throw new BelljarError("DISK_FULL", `no room is left for ${path}`, { facts: { path }, cause: error });
  }
}
