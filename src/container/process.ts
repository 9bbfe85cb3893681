/** A process in a container as the host sees it: three streams, signals, a terminal's size, and how it ended. */
import {
  type AgentCaller,
  type AgentResponse,
  inputStream,
  outputStream,
  type ProcessAddress,
} from "../agent-client/index.ts";
import { linkLimits } from "../base/index.ts";

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

export interface ProcessStartOptions {
  readonly signal?: AbortSignal | undefined;
  /** Give the process an open standard input; otherwise it reads /dev/null. */
  readonly stdin?: boolean;
  readonly terminalSize?: TerminalSize | undefined;
}

export interface ProcessStatus {
  /** As a shell has it: 128 + N when signal N ended the process. */
  readonly exitCode: number;
  /** Number of the signal that ended the process. */
  readonly signal: number | undefined;
  /** The guest's kernel killed a process of the container for lack of memory. */
  readonly oomKilled: boolean;
  /** Milliseconds since the epoch, by the guest's clock. */
  readonly startedAtMs: number;
  readonly exitedAtMs: number;
  /** Why the command could not be executed at all; `exitCode` is 126 or 127 then. */
  readonly launchError: string | undefined;
}

export interface ProcessFacts extends ProcessAddress {
  /** In the guest. */
  readonly pid: number;
  readonly tty: boolean;
  readonly stdin: boolean;
}

export interface ProcessDeps {
  readonly agent: AgentCaller;
  /** Fails when the sandbox ends first. */
  readonly whileAlive: <T>(work: Promise<T>) => Promise<T>;
}

export class Process {
  readonly pid: number;
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array>;
  /** Of a process with a terminal: at its end from the beginning. */
  readonly stderr: ReadableStream<Uint8Array>;
  readonly #deps: ProcessDeps;
  readonly #address: ProcessAddress;
  #status: Promise<ProcessStatus> | undefined;
  #lostBytes = 0n;

  constructor(deps: ProcessDeps, facts: ProcessFacts) {
    this.#deps = deps;
    this.#address = { containerId: facts.containerId, processId: facts.processId };
    this.pid = facts.pid;
    const agent: AgentCaller = {
      call: (method, request, options) => deps.whileAlive(deps.agent.call(method, request, options)),
    };
    const output = (stream: 1 | 2): ReadableStream<Uint8Array> =>
      outputStream(agent, this.#address, {
        stream,
        onLost: (bytes) => {
          this.#lostBytes += bytes;
        },
      });
    this.stdin = facts.stdin ? inputStream(agent, this.#address) : new WritableStream();
    this.stdout = output(1);
    this.stderr = facts.tty ? emptyStream() : output(2);
  }

  /** Bytes of output that had fallen out of the guest's ring before anybody read them. */
  get lostBytes(): bigint {
    return this.#lostBytes;
  }

  /** How the process ended; asked for once, whoever waits. */
  get status(): Promise<ProcessStatus> {
    this.#status ??= this.#wait();
    return this.#status;
  }

  /** A process that is gone is success. */
  async signal(number: number): Promise<void> {
    await this.#call("signalProcess", { ...this.#address, signal: number });
  }

  async resize(size: TerminalSize): Promise<void> {
    await this.#call("resizeTerminal", { ...this.#address, size: { ...size } });
  }

  async #wait(): Promise<ProcessStatus> {
    for (;;) {
      const answer = await this.#deps.whileAlive(
        this.#deps.agent.call(
          "waitProcess",
          { ...this.#address, waitMs: linkLimits.longPollMs },
          { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs },
        ),
      );
      if (answer.ended) return toStatus(answer);
    }
  }

  async #call(method: "signalProcess" | "resizeTerminal", request: object): Promise<void> {
    await this.#deps.whileAlive(this.#deps.agent.call(method, request));
  }
}

/** The guest may say anything: numbers are brought into their ranges. */
function toStatus(answer: AgentResponse<"waitProcess">): ProcessStatus {
  return {
    exitCode: Math.min(answer.exitCode, 255),
    signal: answer.signal > 0 && answer.signal <= 64 ? answer.signal : undefined,
    oomKilled: answer.oomKilled,
    startedAtMs: toMilliseconds(answer.startedAtNs),
    exitedAtMs: toMilliseconds(answer.exitedAtNs),
    launchError: answer.launchError === "" ? undefined : cleanText(answer.launchError),
  };
}

function toMilliseconds(nanoseconds: bigint): number {
  return Number(BigInt.asUintN(63, nanoseconds) / 1_000_000n);
}

const LAUNCH_ERROR_MAX_LENGTH = 400;

function cleanText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is the point
  return text.slice(0, LAUNCH_ERROR_MAX_LENGTH).replace(/[\u0000-\u001f\u007f-\u009f]/g, " ");
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}
