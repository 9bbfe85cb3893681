/**
 * A process as its holder sees it, made of calls by offset: three web streams, a status, signals. The only place where streams
 * of processes are made for programs; where the calls go is not its business.
 *
 * Invariants: nothing is read before somebody asks for it, so a reader that stops reading holds the process up; input counts
 * as written once it has been taken.
 */
import { linesOf, linkLimits, type OutputLine, StartedProcess, streamLimits } from "../base/index.ts";
import type { ProcessStatus, TerminalSize } from "../container/index.ts";
import type {
  CallOptions,
  InputAnswer,
  InputRequest,
  OutputPiece,
  OutputRequest,
  ProcessHandle,
} from "../runtime/index.ts";

/** What a process is asked, wherever it is. */
export interface ProcessCalls {
  readOutput(request: OutputRequest, options?: CallOptions): Promise<OutputPiece>;
  writeInput(request: InputRequest, options?: CallOptions): Promise<InputAnswer>;
  waitForEnd(waitMs: number, options?: CallOptions): Promise<ProcessStatus | undefined>;
  signal(number: number): Promise<void>;
  resize(size: TerminalSize): Promise<void>;
  release(): Promise<void>;
}

export interface ProcessFacts {
  readonly containerId: string;
  readonly id: string;
  readonly pid: number;
  readonly tty: boolean;
  readonly stdoutOffset: bigint;
  readonly stderrOffset: bigint;
  /** This handle has started it. */
  readonly started?: { readonly endSignal: AbortSignal | undefined } | undefined;
}

export class StreamedProcess implements ProcessHandle {
  readonly containerId: string;
  readonly id: string;
  readonly pid: number;
  readonly tty: boolean;
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
  readonly #calls: ProcessCalls;
  readonly #started: StartedProcess | undefined;
  #lostBytes = 0n;
  #status: Promise<ProcessStatus> | undefined;

  constructor(facts: ProcessFacts, calls: ProcessCalls) {
    this.containerId = facts.containerId;
    this.id = facts.id;
    this.pid = facts.pid;
    this.tty = facts.tty;
    this.#calls = calls;
    this.stdin = this.#input();
    this.stdout = this.#output(1, facts.stdoutOffset);
    this.stderr = facts.tty ? emptyStream() : this.#output(2, facts.stderrOffset);
    this.#started = facts.started && new StartedProcess(this, facts.started.endSignal);
  }

  async checkWanted(): Promise<void> {
    await this.#started?.checkWanted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#started?.end();
  }

  get lostBytes(): bigint {
    return this.#lostBytes;
  }

  get status(): Promise<ProcessStatus> {
    this.#status ??= this.#wait();
    return this.#status;
  }

  lines(): AsyncIterable<OutputLine> {
    return linesOf(this);
  }

  signal(number: number): Promise<void> {
    return this.#calls.signal(number);
  }

  resize(size: TerminalSize): Promise<void> {
    return this.#calls.resize(size);
  }

  release(): Promise<void> {
    this.#started?.untie();
    return this.#calls.release();
  }

  readOutput(request: OutputRequest, options?: CallOptions): Promise<OutputPiece> {
    return this.#calls.readOutput(request, options);
  }

  writeInput(request: InputRequest, options?: CallOptions): Promise<InputAnswer> {
    return this.#calls.writeInput(request, options);
  }

  waitForEnd(waitMs: number, options?: CallOptions): Promise<ProcessStatus | undefined> {
    return this.#calls.waitForEnd(waitMs, options);
  }

  async #wait(): Promise<ProcessStatus> {
    for (;;) {
      const status = await this.#calls.waitForEnd(linkLimits.longPollMs);
      if (status !== undefined) return status;
    }
  }

  #output(stream: 1 | 2, from: bigint): ReadableStream<Uint8Array> {
    const stop = new AbortController();
    let offset = from;
    const read = (): Promise<OutputPiece> =>
      this.#calls.readOutput(
        { stream, offset, maxBytes: streamLimits.chunkMaxBytes, waitMs: linkLimits.longPollMs },
        { signal: stop.signal },
      );
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          for (;;) {
            const piece = await read();
            if (stop.signal.aborted) return;
            if (piece.offset > offset) this.#lostBytes += piece.offset - offset;
            offset = piece.offset + BigInt(piece.data.length);
            if (piece.data.length > 0) controller.enqueue(piece.data);
            if (piece.end) controller.close();
            if (piece.data.length > 0 || piece.end) return;
          }
        },
        cancel: async () => {
          stop.abort();
          await this.#calls.readOutput({ stream, offset, maxBytes: 0, waitMs: 0, detach: true }).catch(() => {});
        },
      },
      { highWaterMark: 0 },
    );
  }

  #input(): WritableStream<Uint8Array> {
    const stop = new AbortController();
    let offset = 0n;
    let closed = false;
    const send = async (data: Uint8Array, end: boolean): Promise<void> => {
      let rest = data;
      do {
        const answer = await this.#calls.writeInput({ offset, data: rest, end }, { signal: stop.signal });
        const taken = Number(answer.accepted - offset);
        closed ||= answer.closed;
        rest = rest.subarray(Math.max(0, Math.min(taken, rest.length)));
        offset += BigInt(Math.max(0, taken));
      } while (rest.length > 0 && !closed);
    };
    return new WritableStream<Uint8Array>({
      write: async (chunk) => {
        for (let at = 0; at < chunk.length && !closed; at += streamLimits.chunkMaxBytes) {
          await send(chunk.subarray(at, at + streamLimits.chunkMaxBytes), false);
        }
      },
      close: async () => {
        if (!closed) await send(new Uint8Array(0), true);
      },
      abort: () => stop.abort(),
    });
  }
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}
