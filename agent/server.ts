/**
 * The guest's end of the link: connections out of the port's bytes, calls out of frames, answers in.
 *
 * Invariants: a host that breaks the protocol, or that comes back on a new connection, costs the old connection's calls and
 * nothing else. At most `callsInFlightMax` calls are under way. While `sendQueueMaxBytes` wait to be written, no more
 * requests are read, and handlers of bulk data wait for room before they take any.
 */
import { BelljarError, messageChain } from "../src/base/errors.ts";
import { linkLimits } from "../src/base/limits.ts";
import {
  AgentService,
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
import { type Handle, type Handlers, methodsOf } from "./methods.ts";
import type { Port } from "./port.ts";
import { SendQueue } from "./send-queue.ts";

export type { Handlers };

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
  readonly #queue: SendQueue;

  constructor(port: Port, handlers: Handlers) {
    this.#port = port;
    this.#queue = new SendQueue(port);
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
      await this.#queue.room();
    }
  }

  #startConnection(echo: Buffer): void {
    this.#endConnection();
    this.#connection = { decoder: new FrameDecoder(REQUEST), calls: new Map(), lastStreamId: 0, greeted: false };
    this.#queue.send(echo);
  }

  /** What was under way for the old connection is given up; what was not yet written of it never will be. */
  #endConnection(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    for (const controller of connection?.calls.values() ?? []) {
      controller.abort(new BelljarError("AGENT_DISCONNECTED", "the host has closed the link"));
    }
    this.#queue.empty();
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
      this.#queue.send(encodeReset());
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
      const context = { signal, roomToSend: () => this.#queue.room(signal) };
      // Bulk data may still lie in a ring: from here to its copy nothing else has a turn.
      const { message, bulk } = await Promise.race([handle(request.payload, context), ended]);
      response = encodeResponse(streamId, message, bulk, (size) => this.#queue.buffer(size));
    } catch (error) {
      response = encodeErrorResponse(streamId, asAgentError(error));
    } finally {
      clearTimeout(timer);
    }
    connection.calls.delete(streamId);
    if (this.#connection === connection) this.#queue.send(response);
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
}

/** Errors that are not ours keep their words, with which somebody may find out what happened in the guest. */
function asAgentError(thrown: unknown): BelljarError {
  if (thrown instanceof BelljarError) return thrown;
  return new BelljarError("AGENT_FAILED", messageChain(thrown).join(": "));
}

/** The longest time that a timer can be set to. */
const TIMEOUT_MAX_MS = 0x7fff_ffff;
