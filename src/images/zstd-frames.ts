/**
 * zstd data of any number of frames. Node's decompressor stops after the first frame, and takes a skippable frame for the
 * end; layers have both (`zstd:chunked`, pzstd). So one decompressor per frame, and what it has not consumed goes to the next.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createZstdDecompress } from "node:zlib";
import { BelljarError } from "../base/index.ts";
import { ByteReader } from "./byte-reader.ts";

const CHUNK_BYTES = 256 * 1024;
/** A layer has at most a frame per file; a million empty frames are an attack on patience. */
const FRAMES_MAX = 2_000_000;

export async function* zstdFrames(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const reader = new ByteReader(source);
  try {
    for (let frames = 0; ; frames += 1) {
      if (frames > FRAMES_MAX) throw new BelljarError("IMAGE_HOSTILE", `it has more than ${FRAMES_MAX} zstd frames`);
      const magic = await reader.read(4);
      if (magic.length === 0) return;
      if (magic.length === 4 && (magic.readUInt32LE(0) & 0xfffffff0) === 0x184d2a50) await skipFrame(reader);
      else {
        reader.unread(magic);
        yield* oneFrame(reader);
      }
    }
  } finally {
    await reader.close();
  }
}

async function skipFrame(reader: ByteReader): Promise<void> {
  const length = await reader.read(4);
  let left = length.length === 4 ? length.readUInt32LE(0) : 1;
  while (left > 0) {
    const skipped = await reader.readSome(Math.min(left, CHUNK_BYTES));
    if (skipped === undefined) throw new BelljarError("IMAGE_INVALID", "its zstd data is damaged or cut off");
    left -= skipped.length;
  }
}

async function* oneFrame(reader: ByteReader): AsyncGenerator<Buffer> {
  const frame = createZstdDecompress({ chunkSize: CHUNK_BYTES });
  /** Handed to the decompressor, perhaps not consumed yet. */
  const fed: { readonly end: number; readonly data: Buffer }[] = [];
  let fedBytes = 0;
  async function* feed(): AsyncGenerator<Buffer> {
    for (;;) {
      const data = await reader.readSome(CHUNK_BYTES);
      if (data === undefined) return;
      while (fed[0] !== undefined && fed[0].end <= frame.bytesWritten) fed.shift();
      fedBytes += data.length;
      fed.push({ end: fedBytes, data });
      yield data;
    }
  }
  // Its error arrives through the decompressor; when the frame ends first, the pipeline is cut short, which is no error.
  const feeding = pipeline(Readable.from(feed(), { objectMode: false }), frame).catch(() => {});
  try {
    for await (const chunk of frame) if (Buffer.isBuffer(chunk)) yield chunk;
  } finally {
    frame.destroy();
    await feeding;
  }
  const consumed = frame.bytesWritten;
  const rest = fed
    .filter((piece) => piece.end > consumed)
    .map(({ end, data }) => data.subarray(Math.max(0, consumed - (end - data.length))));
  reader.unread(Buffer.concat(rest));
}
