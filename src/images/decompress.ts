/**
 * Decompression by what the data is, not by what somebody says it is: the first bytes decide, and the digest of the result is
 * checked by the caller. gzip and zstd are what image layers use; xz and bzip2 only come with root file systems.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { BelljarError, isSystemError } from "../base/index.ts";
import { toolOutput } from "./tool-output.ts";
import { zstdFrames } from "./zstd-frames.ts";

const CHUNK_BYTES = 256 * 1024;

export type Compression = "none" | "gzip" | "zstd" | "xz" | "bzip2";

export function compressionOf(head: Buffer): Compression {
  const magic = head.toString("hex", 0, 6);
  if (magic.startsWith("1f8b")) return "gzip";
  // A zstd frame, or a skippable one, with which `zstd:chunked` layers may begin.
  if (magic.startsWith("28b52ffd") || /^5[0-9a-f]2a4d18/.test(magic)) return "zstd";
  if (magic === "fd377a585a00") return "xz";
  if (magic.startsWith("425a68")) return "bzip2";
  return "none";
}

/** @throws BelljarError `IMAGE_INVALID` when the data is damaged, and what the source throws. */
export async function* decompress(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  let ended = false;
  while (head.length < 6 && !ended) {
    const next = await iterator.next();
    if (next.done === true) ended = true;
    else head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  const whole = resume(head, iterator, ended);
  const compression = compressionOf(head);
  try {
    switch (compression) {
      case "none":
        yield* whole;
        return;
      case "gzip":
        yield* transformed(whole, createGunzip({ chunkSize: CHUNK_BYTES }));
        return;
      case "zstd":
        yield* zstdFrames(whole);
        return;
      case "xz":
      case "bzip2":
        yield* toolOutput(compression, ["--decompress", "--stdout"], { input: whole });
        return;
    }
  } catch (error) {
    const byTool = error instanceof BelljarError && error.reason === "HOST_TOOL_FAILED";
    if (byTool)
      throw new BelljarError("IMAGE_INVALID", `its ${compression} data is damaged or cut off`, {
        facts: { compression },
        cause: error,
      });
    if (isSystemError(error) && /^(Z_|ZSTD_|ERR_ZSTD)/.test(error.code ?? "")) {
      throw new BelljarError("IMAGE_INVALID", `its ${compression} data is damaged or cut off: ${error.message}`, {
        facts: { compression },
        cause: error,
      });
    }
    throw error;
  }
}

async function* resume(head: Buffer, rest: AsyncIterator<Buffer>, ended: boolean): AsyncGenerator<Buffer> {
  try {
    if (head.length > 0) yield head;
    while (!ended) {
      const next = await rest.next();
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    await rest.return?.();
  }
}

async function* transformed(
  source: AsyncIterable<Buffer>,
  transform: NodeJS.ReadWriteStream & Readable,
): AsyncGenerator<Buffer> {
  // An error of the source destroys the transform with that error, and reading the transform throws it.
  const feeding = pipeline(Readable.from(source, { objectMode: false }), transform).catch(() => {});
  try {
    for await (const chunk of transform) yield chunk as Buffer;
  } finally {
    transform.destroy();
    await feeding;
  }
}
