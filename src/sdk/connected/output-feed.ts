/**
 * One output stream of a process over the connection, asked for by offset. Pieces come as the daemon has them, and no faster
 * than they are taken; when the connection or the daemon is lost, reading goes on at the first byte that has not come.
 */
import { cancelledError, streamLimits } from "../../base/index.ts";
import type { api } from "../../protocol/index.ts";
import type { OutputPiece, OutputRequest } from "../../runtime/index.ts";
import type { DaemonLink } from "./daemon-link.ts";

export interface OutputAddress {
  readonly sandbox: string;
  readonly container: string;
  readonly process: string;
}

const NOTHING = new Uint8Array(0);

type Arrival = IteratorResult<api.StreamOutputResponse, unknown>;

export class OutputFeed {
  readonly #link: DaemonLink;
  readonly #address: OutputAddress;
  readonly #stream: 1 | 2;
  #iterator: AsyncIterator<api.StreamOutputResponse> | undefined;
  #stop = new AbortController();
  /** Offset of the byte that comes next. */
  #offset = 0n;
  #arriving: Promise<Arrival> | undefined;
  /** The daemon knows that the bytes before this one have come. */
  #acknowledged = 0n;
  #isAcknowledging = false;
  /** What came and was not taken yet. */
  #rest: OutputPiece | undefined;

  constructor(link: DaemonLink, address: OutputAddress, stream: 1 | 2) {
    this.#link = link;
    this.#address = address;
    this.#stream = stream;
  }

  async read(request: OutputRequest, signal: AbortSignal | undefined): Promise<OutputPiece> {
    if (request.detach === true) this.#close();
    if (request.detach === true || request.maxBytes <= 0) return { offset: request.offset, data: NOTHING, end: false };
    if (this.#iterator !== undefined && request.offset !== this.#offset) this.#close();
    // Who asks for what comes next has what came before.
    if (this.#iterator !== undefined) this.#acknowledge(request.offset);
    for (;;) {
      if (this.#rest !== undefined) return this.#take(this.#rest, request.maxBytes);
      try {
        if (this.#iterator === undefined) await this.#open(request.offset, signal);
        const piece = await this.#arrival(request, signal);
        if (piece === undefined) return { offset: request.offset, data: NOTHING, end: false };
        this.#rest = piece;
      } catch (error) {
        this.#close();
        await this.#link.reopen(error, "its output was read", signal);
      }
    }
  }

  async #open(offset: bigint, signal: AbortSignal | undefined): Promise<void> {
    await this.#link.reach(signal);
    this.#offset = offset;
    this.#stop = new AbortController();
    this.#acknowledged = offset;
    const request = { process: this.#address, stream: this.#stream, offset, acknowledgedByClient: true };
    const answers = this.#link.clients.process.streamOutput(request, { signal: this.#stop.signal });
    this.#iterator = answers[Symbol.asyncIterator]();
  }

  /** The next piece, or undefined when it does not come in time; it is then still waited for by the next reading. */
  async #arrival(request: OutputRequest, signal: AbortSignal | undefined): Promise<OutputPiece | undefined> {
    this.#arriving ??= this.#iterator?.next();
    // One that nobody waits for just now tells its failure to the next reading.
    this.#arriving?.catch(() => {});
    const timer = Promise.withResolvers<undefined>();
    const timeout = setTimeout(() => timer.resolve(undefined), request.waitMs);
    const onAbort = (): void => timer.reject(cancelledError(signal));
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const arrival = await Promise.race([this.#arriving, timer.promise]);
      if (arrival === undefined) return undefined;
      this.#arriving = undefined;
      // Ended without its last piece: the daemon let go of it.
      if (arrival.done === true) {
        this.#close();
        await this.#link.reach(signal);
        return undefined;
      }
      const { offset, data, end } = arrival.value;
      return { offset, data, end };
    } finally {
      clearTimeout(timeout);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Once in a while, and never two at a time. A failure is the stream's too, and shows there. */
  #acknowledge(offset: bigint): void {
    // Output of a first process is in the daemon's log, which needs no telling.
    if (this.#address.process === "" || this.#isAcknowledging) return;
    if (offset - this.#acknowledged < BigInt(streamLimits.acknowledgeBytes)) return;
    this.#isAcknowledging = true;
    this.#acknowledged = offset;
    this.#link.clients.process
      .acknowledgeOutput({ process: this.#address, stream: this.#stream, offset }, { signal: this.#stop.signal })
      .catch(() => {})
      .finally(() => {
        this.#isAcknowledging = false;
      });
  }

  #take(piece: OutputPiece, maxBytes: number): OutputPiece {
    const count = Math.min(piece.data.length, maxBytes, streamLimits.chunkMaxBytes);
    const isAll = count === piece.data.length;
    this.#offset = piece.offset + BigInt(count);
    this.#rest = isAll ? undefined : { ...piece, offset: this.#offset, data: piece.data.subarray(count) };
    return { offset: piece.offset, data: piece.data.subarray(0, count), end: isAll && piece.end };
  }

  #close(): void {
    this.#stop.abort();
    this.#iterator = undefined;
    this.#arriving = undefined;
    this.#rest = undefined;
  }
}
