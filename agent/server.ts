/**
 * The guest's end of the link: connections out of the port's bytes, calls out of frames, answers in.
 *
 * Invariants: a host that breaks the protocol, or that comes back on a new connection, costs the old connection's calls and
 * nothing else. At most `callsInFlightMax` calls are under way. While `sendQueueMaxBytes` wait to be written, no more
 * requests are read, and handlers of bulk data wait for room before they take any.
 */
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { BelljarError, messageChain } from "../src/base/errors.ts";
import { linkLimits, streamLimits } from "../src/base/limits.ts";
import {
  AgentService,
  type BulkField,
  cleanMessage,
  decodeRequest,
  encodeEcho,
  encodeErrorResponse,
  encodeReset,
  encodeResponse,
  type Frame,
  FrameDecoder,
  HelloScanner,
  PROTOCOL_VERSION,
  REQUEST,
  type Request,
} from "../src/protocol/index.ts";
import type { Port } from "./port.ts";

type Methods = (typeof AgentService)["method"];

export interface CallContext {
  /** Fires when nobody waits for the answer any more: deadline, lost connection, a new connection. */
  readonly signal: AbortSignal;
  /** Resolves when an answer with much data in it may be made; throws when nobody waits for it any more. */
  roomToSend(): Promise<void>;
}

export type Handlers = {
  readonly [M in keyof Methods]: (
    request: MessageShape<Methods[M]["input"]>,
    context: CallContext,
  ) => Promise<MessageInitShape<Methods[M]["output"]>>;
};

interface Answer {
  readonly message: Uint8Array;
  readonly bulk?: BulkField;
}

type Handle = (payload: Uint8Array, context: CallContext) => Promise<Answer>;

interface Connection {
  readonly decoder: FrameDecoder;
  readonly calls: Map<number, AbortController>;
  lastStreamId: number;
  /** The host has said `Hello` with our version. */
  greeted: boolean;
}

export class AgentServer {
  readonly #port: Port;
  readonly #methods: ReadonlyMap<string, Handle>;
  readonly #scanner = new HelloScanner();
  #connection: Connection | undefined;
  /** What waits to be written, in order. */
  #queue: Uint8Array[] = [];
  #queueBytes = 0;
  /** Raised when the queue is emptied, so that a write under way does not count itself out of the next one. */
  #epoch = 0;
  #writing = false;
  readonly #buffers = new BufferPool();
  readonly #waitingForRoom: (() => void)[] = [];

  constructor(port: Port, handlers: Handlers) {
    this.#port = port;
    this.#methods = methodsOf(handlers);
  }

  /** Serves for ever; rejects only when the port itself fails. */
  async run(): Promise<never> {
    for (;;) {
      const bytes = await this.#port.read();
      if (bytes.length === 0) {
        this.#scanner.reset();
        this.#endConnection();
        continue;
      }
      for (const event of this.#scanner.push(bytes)) {
        if (event.kind === "hello") this.#startConnection(encodeEcho({ ...event.line, version: PROTOCOL_VERSION }));
        else this.#receive(event.bytes);
      }
      while (this.#queueBytes >= linkLimits.sendQueueMaxBytes) await this.#room();
    }
  }

  #startConnection(echo: Buffer): void {
    this.#endConnection();
    this.#connection = { decoder: new FrameDecoder(REQUEST), calls: new Map(), lastStreamId: 0, greeted: false };
    this.#send(echo);
  }

  /** What was under way for the old connection is given up; what was not yet written of it never will be. */
  #endConnection(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    for (const controller of connection?.calls.values() ?? []) {
      controller.abort(new BelljarError("AGENT_DISCONNECTED", "the host has closed the link"));
    }
    this.#queue = [];
    this.#queueBytes = 0;
    this.#epoch += 1;
    this.#wakeRoom();
  }

  #receive(bytes: Buffer): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    try {
      for (const frame of connection.decoder.push(bytes)) this.#startCall(connection, frame);
    } catch {
      // The port cannot be closed, so the host is told by a header that no frame has, and must come again with a hello.
      this.#scanner.reset();
      this.#endConnection();
      this.#send(encodeReset());
    }
  }

  #startCall(connection: Connection, frame: Frame): void {
    if (frame.streamId <= connection.lastStreamId) {
      throw new BelljarError("AGENT_PROTOCOL", `the stream id ${frame.streamId} was used before`);
    }
    connection.lastStreamId = frame.streamId;
    const request = decodeRequest(frame);
    const controller = new AbortController();
    const full = connection.calls.size >= linkLimits.callsInFlightMax;
    connection.calls.set(frame.streamId, controller);
    void this.#answer(connection, frame.streamId, request, controller, full);
  }

  async #answer(
    connection: Connection,
    streamId: number,
    request: Request,
    controller: AbortController,
    full: boolean,
  ): Promise<void> {
    const { signal } = controller;
    const { promise: ended, reject: end } = Promise.withResolvers<never>();
    signal.addEventListener("abort", () => end(signal.reason), { once: true });
    const timer =
      request.timeoutMs === undefined
        ? undefined
        : setTimeout(
            () => {
              const message = `${request.method} did not end within ${request.timeoutMs} ms`;
              controller.abort(new BelljarError("DEADLINE_EXCEEDED", message));
            },
            Math.min(request.timeoutMs, TIMEOUT_MAX_MS),
          );
    let response: Buffer;
    try {
      if (full) throw new BelljarError("AGENT_FAILED", `more than ${linkLimits.callsInFlightMax} calls are under way`);
      const handle = this.#find(connection, request);
      const context = { signal, roomToSend: () => this.#waitForRoom(signal) };
      // Bulk data may still lie in a ring: from here to its copy nothing else has a turn.
      const { message, bulk } = await Promise.race([handle(request.payload, context), ended]);
      response = encodeResponse(streamId, message, bulk, (size) => this.#buffers.take(size));
    } catch (error) {
      response = encodeErrorResponse(streamId, asAgentError(error));
    } finally {
      clearTimeout(timer);
    }
    connection.calls.delete(streamId);
    if (this.#connection === connection) this.#send(response);
  }

  #find(connection: Connection, request: Request): Handle {
    const handle = request.service === AgentService.typeName ? this.#methods.get(request.method) : undefined;
    if (handle === undefined) {
      const name = cleanMessage(`${request.service}/${request.method}`);
      throw new BelljarError("AGENT_FAILED", `this agent has no method ${name}`);
    }
    if (request.method === AgentService.method.hello.name) {
      return async (payload, context) => {
        const answer = await handle(payload, context);
        connection.greeted = true;
        return answer;
      };
    }
    if (!connection.greeted) throw new BelljarError("AGENT_VERSION", "the host has not said which version it speaks");
    return handle;
  }

  #send(bytes: Uint8Array): void {
    this.#queue.push(bytes);
    this.#queueBytes += bytes.length;
    if (!this.#writing) void this.#writeQueue();
  }

  async #writeQueue(): Promise<void> {
    this.#writing = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const epoch = this.#epoch;
        await this.#port.write(next);
        this.#buffers.giveBack(next);
        // The queue may have been emptied meanwhile, and its count with it.
        if (epoch === this.#epoch) this.#queueBytes -= next.length;
        this.#wakeRoom();
      }
    } finally {
      this.#writing = false;
    }
  }

  async #waitForRoom(signal: AbortSignal): Promise<void> {
    while (this.#queueBytes >= linkLimits.sendQueueMaxBytes && !signal.aborted) await this.#room();
    signal.throwIfAborted();
  }

  #room(): Promise<void> {
    return new Promise((resolve) => this.#waitingForRoom.push(resolve));
  }

  #wakeRoom(): void {
    for (const wake of this.#waitingForRoom.splice(0)) wake();
  }
}

/** Written out, so that the compiler checks each method's messages. */
function methodsOf(handlers: Handlers): ReadonlyMap<string, Handle> {
  const methods = AgentService.method;
  return new Map([
    bind(methods.hello, async (request, context) => {
      if (request.protocolVersion !== PROTOCOL_VERSION) {
        throw new BelljarError(
          "AGENT_VERSION",
          `the host speaks version ${request.protocolVersion} of the protocol, the agent in this guest version ${PROTOCOL_VERSION}`,
        );
      }
      return await handlers.hello(request, context);
    }),
    bind(methods.configureSandbox, handlers.configureSandbox),
    bind(methods.getGuestStats, handlers.getGuestStats),
    bind(methods.createContainer, handlers.createContainer),
    bind(methods.startContainer, handlers.startContainer),
    bind(methods.removeContainer, handlers.removeContainer),
    bind(methods.execProcess, handlers.execProcess),
    bind(methods.signalProcess, handlers.signalProcess),
    bind(methods.waitProcess, handlers.waitProcess),
    bind(methods.resizeTerminal, handlers.resizeTerminal),
    bindReadOutput(handlers),
    bind(methods.writeInput, handlers.writeInput),
    bind(methods.shutdown, handlers.shutdown),
  ]);
}

function bind<I extends DescMessage, O extends DescMessage>(
  method: { readonly name: string; readonly input: I; readonly output: O },
  handler: (request: MessageShape<I>, context: CallContext) => Promise<MessageInitShape<O>>,
): [string, Handle] {
  return [
    method.name,
    async (payload, context) => {
      const request = decodeArguments(method.name, () => fromBinary(method.input, payload));
      return { message: toBinary(method.output, create(method.output, await handler(request, context))) };
    },
  ];
}

/** Its data goes into the frame without being copied on the way. */
function bindReadOutput(handlers: Handlers): [string, Handle] {
  const { name, input, output } = AgentService.method.readOutput;
  return [
    name,
    async (payload, context) => {
      const request = decodeArguments(name, () => fromBinary(input, payload));
      const { data, offset = 0n, end = false } = await handlers.readOutput(request, context);
      const message = toBinary(output, create(output, { offset, end }));
      return data === undefined || data.length === 0
        ? { message }
        : { message, bulk: { field: output.field.data.number, data } };
    },
  ];
}

/**
 * Large buffers for frames, used again and again: in an emulated guest the page faults of a new one take longer than all that
 * is done with it.
 */
class BufferPool {
  readonly #free: Buffer[] = [];
  readonly #own = new WeakSet<ArrayBufferLike>();

  take(size: number): Buffer {
    if (size < POOLED_MIN_BYTES || size > POOLED_BYTES) return Buffer.allocUnsafe(size);
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(POOLED_BYTES);
    this.#own.add(buffer.buffer);
    return buffer.subarray(0, size);
  }

  /** Takes back what came from here; anything else is left alone. */
  giveBack(bytes: Uint8Array): void {
    if (this.#own.has(bytes.buffer) && this.#free.length < streamLimits.requestsAhead) {
      this.#free.push(Buffer.from(bytes.buffer, 0, POOLED_BYTES));
    }
  }
}

/** A full answer of `ReadOutput` with all that stands around its data. */
const POOLED_BYTES = streamLimits.chunkMaxBytes + 64;
const POOLED_MIN_BYTES = 64 * 1024;

/** A well-formed call with arguments that are not is the caller's mistake; the connection itself is in order. */
function decodeArguments<T>(method: string, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    throw new BelljarError("INVALID_ARGUMENT", `the arguments of ${method} cannot be decoded`, { cause });
  }
}

/** Errors that are not ours keep their words, with which somebody may find out what happened in the guest. */
function asAgentError(thrown: unknown): BelljarError {
  if (thrown instanceof BelljarError) return thrown;
  return new BelljarError("AGENT_FAILED", messageChain(thrown).join(": "));
}

/** The longest time that a timer can be set to. */
const TIMEOUT_MAX_MS = 0x7fff_ffff;
