/**
 * The last bytes that a process wrote to one of its outputs, under their offsets in the whole stream. Bytes leave it when the
 * reader acknowledges them, or when newer ones push them out.
 *
 * Invariant: start <= end <= start + capacity; bytes [start, end) are there.
 */
export class OutputRing {
  readonly capacity: number;
  #start = 0;
  #end = 0;
  /** Made at the first write: most processes write little, and many nothing. */
  #bytes: Buffer | undefined;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** Offset of the oldest byte that is still there. */
  get start(): number {
    return this.#start;
  }

  /** Offset of the byte that comes next. */
  get end(): number {
    return this.#end;
  }

  /** Bytes that can be written before the oldest ones fall out. */
  get room(): number {
    return this.capacity - (this.#end - this.#start);
  }

  /** Takes all of it; the oldest bytes fall out when there is not enough room. */
  write(bytes: Uint8Array): void {
    this.#bytes ??= Buffer.allocUnsafeSlow(this.capacity);
    const ring = this.#bytes;
    const kept = bytes.subarray(Math.max(0, bytes.length - this.capacity));
    const position = (this.#end + bytes.length - kept.length) % this.capacity;
    const untilWrap = Math.min(kept.length, this.capacity - position);
    ring.set(kept.subarray(0, untilWrap), position);
    ring.set(kept.subarray(untilWrap), 0);
    this.#end += bytes.length;
    this.#start = Math.max(this.#start, this.#end - this.capacity);
  }

  /**
   * At most `maxBytes` from `offset` on, or from the oldest byte when that one has fallen out; fewer where the ring's memory ends.
   * Not a copy: valid until the next write, so until something else has had its turn.
   */
  read(offset: number, maxBytes: number): { readonly offset: number; readonly data: Buffer } {
    const from = Math.min(Math.max(offset, this.#start), this.#end);
    const position = from % this.capacity;
    const length = Math.min(maxBytes, this.#end - from, this.capacity - position);
    const data = this.#bytes?.subarray(position, position + length) ?? Buffer.alloc(0);
    return { offset: from, data };
  }

  /** Lets go of the bytes before `offset`. */
  acknowledge(offset: number): void {
    this.#start = Math.min(Math.max(offset, this.#start), this.#end);
  }
}
