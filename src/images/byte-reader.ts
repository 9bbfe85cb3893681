/** Exact reads from a stream of buffers, whatever the sizes in which they arrive. Holds one chunk of the source at a time. */

export class ByteReader {
  readonly #source: AsyncIterator<Buffer>;
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
