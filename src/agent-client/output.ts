/**
 * Output of a process as an endless pull: several requests under way at once, answers in order, no byte twice and none missing
 * but those the guest says it has lost.
 *
 * A consumer that stops reading stops the requests; it is still known to the guest as attached, so that the guest's ring fills,
 * the pipe behind it too, and the process waits. When the link was lost, reading continues at the first byte that has not come.
 */
import { BelljarError, cancelledError, linkLimits, streamLimits } from "../base/index.ts";
import type { AgentCaller, AgentResponse } from "./link.ts";

/** Which process, in which container. */
export interface ProcessAddress {
  readonly containerId: string;
  /** Empty for the container's init process. */
  readonly processId: string;
}

export interface OutputOptions {
  /** 1 standard output, 2 standard error. */
  readonly stream: 1 | 2;
  /** First byte wanted; the beginning unless told. */
  readonly offset?: bigint;
  /** Told of bytes that had fallen out of the guest's ring before they were read. */
  readonly onLost?: (bytes: bigint) => void;
  readonly signal?: AbortSignal | undefined;
}

type Answer = AgentResponse<"readOutput">;

/** A web stream over the output of a process; cancelling it tells the guest that nobody reads any more. */
export function outputStream(
  agent: AgentCaller,
  address: ProcessAddress,
  options: OutputOptions,
): ReadableStream<Uint8Array> {
  const reader = new OutputReader(agent, address, options);
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const chunk = await reader.next();
        if (chunk === undefined) controller.close();
        else controller.enqueue(chunk);
      },
      cancel: () => reader.detach(),
    },
    { highWaterMark: 0 },
  );
}

export class OutputReader {
  readonly #agent: AgentCaller;
  readonly #address: ProcessAddress;
  readonly #options: OutputOptions;
  readonly #stop = new AbortController();
  /** The first byte that has not come yet. */
  #offset: bigint;
  /** What comes before it is done with: the consumer has asked for more since. */
  #consumed: bigint;
  /** Answers under way, the oldest first. The first of a series names its offset, the others follow it. */
  #ahead: { readonly follow: boolean; readonly answer: Promise<Answer> }[] = [];
  /** More than one request is worth while only when the answers come full. */
  #width = 1;
  #ended = false;
  #renewTimer: NodeJS.Timeout | undefined;

  constructor(agent: AgentCaller, address: ProcessAddress, options: OutputOptions) {
    this.#agent = agent;
    this.#address = address;
    this.#options = options;
    this.#offset = options.offset ?? 0n;
    this.#consumed = this.#offset;
  }

  /** Offset of the byte that `next` brings first: where another reader would continue. */
  get offset(): bigint {
    return this.#offset;
  }

  /**
   * The next bytes, never none; undefined at the end. One call at a time; it tells the guest that it may drop what the calls
   * before it have answered, and nothing else does.
   * @throws BelljarError what a call throws; after `AGENT_DISCONNECTED` the next call continues where this one was
   */
  async next(): Promise<Uint8Array | undefined> {
    clearInterval(this.#renewTimer);
    this.#consumed = this.#offset;
    try {
      while (!this.#ended) {
        if (this.#options.signal?.aborted === true) throw cancelledError(this.#options.signal);
        while (this.#ahead.length < this.#width) this.#request();
        const answer = await this.#take();
        if (answer.data.length > 0) return answer.data;
      }
      return undefined;
    } finally {
      if (!this.#ended) this.#keepAttached();
    }
  }

  /** Nobody reads any more: the process is no longer held up. Idempotent; never throws. */
  async detach(): Promise<void> {
    clearInterval(this.#renewTimer);
    if (this.#ended) return;
    this.#ended = true;
    this.#stop.abort();
    await this.#call({ offset: this.#consumed, maxBytes: 0, waitMs: 0, follow: false, detach: true }).catch(() => {});
  }

  /** Stops reading, and leaves everything to whoever reads next: the guest takes it for one reader. Idempotent. */
  abandon(): void {
    clearInterval(this.#renewTimer);
    this.#ended = true;
    this.#stop.abort();
  }

  #request(): void {
    const follow = this.#ahead.length > 0;
    const answer = this.#call({
      offset: this.#offset,
      maxBytes: streamLimits.chunkMaxBytes,
      waitMs: linkLimits.longPollMs,
      follow,
      detach: false,
    });
    // One that fails is told when its turn comes.
    answer.catch(() => {});
    this.#ahead.push({ follow, answer });
  }

  async #take(): Promise<Answer> {
    const oldest = this.#ahead.shift();
    if (oldest === undefined) throw new BelljarError("INTERNAL", "no reading is under way");
    let answer: Answer;
    try {
      answer = await oldest.answer;
    } catch (error) {
      // What follows a request that failed may leave a gap: begin a new series.
      this.#ahead = [];
      this.#width = 1;
      const lost = error instanceof BelljarError && error.reason === "AGENT_DISCONNECTED";
      if (!lost || !oldest.follow) throw error;
      this.#request();
      return await this.#take();
    }
    this.#check(answer);
    if (oldest.follow && answer.offset > this.#offset) {
      // It may have followed a reading that was given up earlier. What is lost is said by one that names its offset.
      this.#ahead = [];
      this.#width = 1;
      this.#request();
      return await this.#take();
    }
    if (answer.offset > this.#offset) this.#options.onLost?.(answer.offset - this.#offset);
    this.#offset = answer.offset + BigInt(answer.data.length);
    this.#ended = answer.end;
    const full = answer.data.length >= streamLimits.chunkMaxBytes / 4;
    this.#width = full ? Math.min(this.#width + 1, streamLimits.requestsAhead) : Math.max(1, this.#width - 1);
    return answer;
  }

  #check(answer: Answer): void {
    const asked = this.#offset;
    if (answer.offset >= asked && answer.data.length <= streamLimits.chunkMaxBytes) return;
    throw new BelljarError("AGENT_PROTOCOL", "the agent answered with output that was not asked for", {
      facts: { asked: String(asked), answered: String(answer.offset), bytes: answer.data.length },
    });
  }

  #keepAttached(): void {
    clearInterval(this.#renewTimer);
    this.#renewTimer = setInterval(() => {
      // A failure shows at the next reading.
      this.#call({ offset: this.#consumed, maxBytes: 0, waitMs: 0, follow: false, detach: false }).catch(() => {});
    }, streamLimits.readerRenewMs);
    this.#renewTimer.unref();
  }

  #call(request: {
    offset: bigint;
    maxBytes: number;
    waitMs: number;
    follow: boolean;
    detach: boolean;
  }): Promise<Answer> {
    const signal = request.detach ? undefined : AbortSignal.any([this.#stop.signal, ...this.#callerSignal()]);
    return this.#agent.call(
      "readOutput",
      { ...this.#address, stream: this.#options.stream, ...request },
      { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal },
    );
  }

  #callerSignal(): AbortSignal[] {
    return this.#options.signal === undefined ? [] : [this.#options.signal];
  }
}
