/**
 * Input of a process: pushed by offset, in pieces, several under way at once. A piece that the guest took only in part is sent
 * again from where it stopped; one that is repeated does no harm.
 */
import { BelljarError, linkLimits, streamLimits, throwIfAborted } from "../base/index.ts";
import type { AgentCaller } from "./link.ts";
import type { ProcessAddress } from "./output.ts";

/** A web stream into a process. Writing after the process has closed its end is no error, as for a pipe's last bytes. */
export function inputStream(agent: AgentCaller, address: ProcessAddress): WritableStream<Uint8Array> {
  const writer = new InputWriter(agent, address);
  return new WritableStream<Uint8Array>({
    write: (chunk) => writer.write(chunk),
    close: () => writer.end(),
    abort: () => writer.abandon(),
  });
}

interface Piece {
  readonly offset: bigint;
  readonly data: Uint8Array;
}

export class InputWriter {
  readonly #agent: AgentCaller;
  readonly #address: ProcessAddress;
  readonly #stop = new AbortController();
  /** Where the next piece begins. */
  #offset = 0n;
  /** Pieces under way, the oldest first; each settles when the guest has taken all of it. */
  readonly #underWay: Promise<void>[] = [];
  #closed = false;
  #failure: unknown;

  constructor(agent: AgentCaller, address: ProcessAddress) {
    this.#agent = agent;
    this.#address = address;
  }

  /** The process reads no more; what is written is thrown away. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Resolves when there is room for more, which is before the guest has all of it. `data` must not be changed afterwards. */
  async write(data: Uint8Array): Promise<void> {
    for (let position = 0; position < data.length && !this.#closed; position += streamLimits.chunkMaxBytes) {
      const piece = { offset: this.#offset, data: data.subarray(position, position + streamLimits.chunkMaxBytes) };
      this.#offset += BigInt(piece.data.length);
      const sent = this.#send(piece);
      sent.catch((error: unknown) => {
        this.#failure ??= error;
      });
      this.#underWay.push(sent);
      while (this.#underWay.length >= streamLimits.requestsAhead) await this.#underWay.shift();
      if (this.#failure !== undefined) throw this.#failure;
    }
  }

  /** Everything is written: resolves when the guest has it all, and closes the process's input. */
  async end(): Promise<void> {
    await this.flush();
    if (!this.#closed) await this.#call({ offset: this.#offset, data: new Uint8Array(0) }, true);
  }

  /** Resolves when the guest has taken everything that was written. */
  async flush(): Promise<void> {
    for (let next = this.#underWay.shift(); next !== undefined; next = this.#underWay.shift()) await next;
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Gives up what is under way; the process's input stays as it is. */
  abandon(): void {
    this.#stop.abort();
  }

  async #send(piece: Piece): Promise<void> {
    let rest = piece;
    while (rest.data.length > 0 && !this.#closed) {
      const accepted = await this.#call(rest, false);
      // It may have taken later pieces too, or none of this one while it still waits for earlier ones.
      const taken = accepted - rest.offset;
      if (taken <= 0n) continue;
      const count = taken > BigInt(rest.data.length) ? rest.data.length : Number(taken);
      rest = { offset: rest.offset + BigInt(count), data: rest.data.subarray(count) };
    }
  }

  async #call(piece: Piece, end: boolean): Promise<bigint> {
    throwIfAborted(this.#stop.signal);
    const answer = await this.#agent.call(
      "writeInput",
      { ...this.#address, offset: piece.offset, data: piece.data, end, waitMs: linkLimits.longPollMs },
      { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal: this.#stop.signal },
    );
    if (answer.accepted > this.#offset) {
      throw new BelljarError("AGENT_PROTOCOL", "the agent took input that was not sent", {
        facts: { sent: String(this.#offset), accepted: String(answer.accepted) },
      });
    }
    if (answer.closed) this.#closed = true;
    return answer.accepted;
  }
}
