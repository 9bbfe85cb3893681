/** Exact reads from a stream of buffers, whatever the sizes in which they arrive. Holds one chunk of the source at a time. */

/** A source that can leave out bytes that nobody wants. */
export interface SkippingIterator extends AsyncIterator<Buffer, undefined> {
  /** Answers how many it left out: fewer than asked for only at its end. */
  skip(bytes: number): Promise<number>;
}

export class ByteReader {
  readonly #source: AsyncIterator<Buffer> | SkippingIterator;
  #chunk: Buffer = Buffer.alloc(0);
  #ended = false;
  #position = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Bytes handed out so far. */
  get position(): number {
    return this.#position;
  }

  /** Up to `maxBytes` bytes, at least one unless the stream has ended (then undefined). */
  async readSome(maxBytes: number): Promise<Buffer | undefined> {
    while (this.#chunk.length === 0) {
      if (this.#ended) return undefined;
      const next = await this.#source.next();
      if (next.done === true) {
        this.#ended = true;
        return undefined;
      }
      this.#chunk = next.value;
    }
    const taken = this.#chunk.subarray(0, maxBytes);
    this.#chunk = this.#chunk.subarray(taken.length);
    this.#position += taken.length;
    return taken;
  }

  /** Exactly `bytes` bytes; fewer only when the stream ended before. The caller bounds `bytes`. */
  async read(bytes: number): Promise<Buffer> {
    if (this.#chunk.length >= bytes) {
      const taken = this.#chunk.subarray(0, bytes);
      this.#chunk = this.#chunk.subarray(bytes);
      this.#position += bytes;
      return taken;
    }
    const parts: Buffer[] = [];
    let missing = bytes;
    while (missing > 0) {
      const part = await this.readSome(missing);
      if (part === undefined) break;
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  /** Passes over up to `bytes` bytes, and answers over how many: fewer only when the stream ended before. */
  async skip(bytes: number): Promise<number> {
    let skipped = Math.min(bytes, this.#chunk.length);
    this.#chunk = this.#chunk.subarray(skipped);
    this.#position += skipped;
    if (skipped < bytes && "skip" in this.#source && !this.#ended) {
      const left = await this.#source.skip(bytes - skipped);
      this.#position += left;
      return skipped + left;
    }
    while (skipped < bytes) {
      const chunk = await this.readSome(bytes - skipped);
      if (chunk === undefined) break;
      skipped += chunk.length;
    }
    return skipped;
  }

  /** Gives back the last bytes read, to be read again. */
  unread(data: Buffer): void {
    if (data.length === 0) return;
    this.#chunk = Buffer.concat([data, this.#chunk]);
    this.#position -= data.length;
  }

  /** Tells the source that nobody reads on, so that it closes its files. */
  async close(): Promise<void> {
    this.#ended = true;
    await this.#source.return?.();
  }
}
