/** A file as a stream of buffers in which the reader may leave bytes out: they are not read at all. Opened with the first read. */
import { type FileHandle, open } from "node:fs/promises";
import type { SkippingIterator } from "./byte-reader.ts";

/** Small: of a table of contents mostly headers are read, each far from the next. */
const CHUNK_BYTES = 16 * 1024;

export class FileSource implements AsyncIterable<Buffer>, SkippingIterator {
  readonly #path: string;
  #file: FileHandle | undefined;
  #sizeBytes = 0;
  #position = 0;

  constructor(path: string) {
    this.#path = path;
  }

  [Symbol.asyncIterator](): SkippingIterator {
    return this;
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    const file = await this.#opened();
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, this.#position);
    this.#position += bytesRead;
    return bytesRead === 0 ? await this.return() : { done: false, value: chunk.subarray(0, bytesRead) };
  }

  async skip(bytes: number): Promise<number> {
    await this.#opened();
    const skipped = Math.min(bytes, this.#sizeBytes - this.#position);
    this.#position += skipped;
    return skipped;
  }

  async return(): Promise<IteratorResult<Buffer, undefined>> {
    await this.#file?.close();
    this.#file = undefined;
    return { done: true, value: undefined };
  }

  async #opened(): Promise<FileHandle> {
    if (this.#file !== undefined) return this.#file;
    this.#file = await open(this.#path, "r");
    this.#sizeBytes = (await this.#file.stat()).size;
    return this.#file;
  }
}
