/** A process in a container, as callers hold it. */
import { type AgentCaller, inputStream, type ProcessAddress } from "../agent-client/index.ts";
import { linesOf, linkLimits, type OutputLine, StartedProcess, streamLimits } from "../base/index.ts";
import type { ProcessStatus, TerminalSize } from "../container/index.ts";
import type { CallOptions, InputAnswer, InputRequest, OutputPiece, OutputRequest, ProcessHandle } from "./interface.ts";

export interface ProcessParts {
  readonly containerId: string;
  /** Empty for the container's first process. */
  readonly id: string;
  readonly pid: number;
  readonly tty: boolean;
  readonly stdin: boolean;
  /** First byte wanted of each stream. */
  readonly offsets: { readonly 1: bigint; readonly 2: bigint };
  /** Fails when the VM ends, and when the sandbox does not allow what is asked. */
  readonly agent: AgentCaller;
  readonly readOutput: (request: OutputRequest, options: CallOptions) => Promise<OutputPiece>;
  readonly waitForEnd: (waitMs: number, options: CallOptions) => Promise<ProcessStatus | undefined>;
  readonly signal: (number: number) => Promise<void>;
  readonly release: () => Promise<void>;
  /** This handle has started it. */
  readonly started?: { readonly endSignal: AbortSignal | undefined } | undefined;
}

export class RuntimeProcess implements ProcessHandle {
  readonly containerId: string;
  readonly id: string;
  readonly pid: number;
  readonly tty: boolean;
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
  readonly #parts: ProcessParts;
  readonly #address: ProcessAddress;
  readonly #started: StartedProcess | undefined;
  #status: Promise<ProcessStatus> | undefined;
  #lostBytes = 0n;

  constructor(parts: ProcessParts) {
    this.#parts = parts;
    this.containerId = parts.containerId;
    this.id = parts.id;
    this.pid = parts.pid;
    this.tty = parts.tty;
    this.#address = { containerId: parts.containerId, processId: parts.id };
    this.stdin = parts.stdin ? inputStream(parts.agent, this.#address) : new WritableStream();
    this.stdout = this.#stream(1);
    this.stderr = parts.tty ? emptyStream() : this.#stream(2);
    this.#started = parts.started && new StartedProcess(this, parts.started.endSignal);
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

  /** Asked for once, whoever waits. */
  get status(): Promise<ProcessStatus> {
    this.#status ??= this.#wait();
    return this.#status;
  }

  lines(): AsyncIterable<OutputLine> {
    return linesOf(this);
  }

  signal(number: number): Promise<void> {
    return this.#parts.signal(number);
  }

  async resize(size: TerminalSize): Promise<void> {
    await this.#parts.agent.call("resizeTerminal", { ...this.#address, size: { ...size } });
  }

  release(): Promise<void> {
    this.#started?.untie();
    return this.#parts.release();
  }

  async readOutput(request: OutputRequest, options: CallOptions = {}): Promise<OutputPiece> {
    return await this.#parts.readOutput(request, options);
  }

  async writeInput(request: InputRequest, options: CallOptions = {}): Promise<InputAnswer> {
    if (!this.#parts.stdin) return { accepted: request.offset + BigInt(request.data.length), closed: true };
    const { accepted, closed } = await this.#parts.agent.call(
      "writeInput",
      { ...this.#address, ...request, waitMs: linkLimits.longPollMs },
      { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal: options.signal },
    );
    return { accepted, closed };
  }

  async waitForEnd(waitMs: number, options: CallOptions = {}): Promise<ProcessStatus | undefined> {
    return await this.#parts.waitForEnd(waitMs, options);
  }

  async #wait(): Promise<ProcessStatus> {
    for (;;) {
      const status = await this.#parts.waitForEnd(linkLimits.longPollMs, {});
      if (status !== undefined) return status;
    }
  }

  #stream(stream: 1 | 2): ReadableStream<Uint8Array> {
    const stop = new AbortController();
    let offset = this.#parts.offsets[stream];
    const read = (more: Partial<OutputRequest>, signal: AbortSignal | undefined): Promise<OutputPiece> =>
      this.#parts.readOutput(
        { stream, offset, maxBytes: streamLimits.chunkMaxBytes, waitMs: linkLimits.longPollMs, ...more },
        { signal },
      );
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          for (;;) {
            const piece = await read({}, stop.signal);
            if (piece.offset > offset) this.#lostBytes += piece.offset - offset;
            offset = piece.offset + BigInt(piece.data.length);
            if (piece.data.length > 0) controller.enqueue(piece.data);
            if (piece.end) controller.close();
            if (piece.end || piece.data.length > 0) return;
          }
        },
        cancel: async () => {
          stop.abort();
          await read({ maxBytes: 0, waitMs: 0, detach: true }, undefined).catch(() => {});
        },
      },
      { highWaterMark: 0 },
    );
  }
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}
