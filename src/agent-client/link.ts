/**
 * The host's end of one connection to the agent: calls out, answers in.
 *
 * Invariants: the guest can make a call fail or the link close, nothing else. At most `callsInFlightMax` calls are under way,
 * abandoned ones that the guest has not answered included; at most `sendQueueMaxBytes` wait to be written. The first thing
 * that breaks the protocol closes the link, and every call under way fails with the reason.
 */
import type { Duplex } from "node:stream";
import { create, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { BelljarError, cancelledError, linkLimits, publishStep, throwIfAborted } from "../base/index.ts";
import {
  AgentService,
  decodeEnvelope,
  decodeResponse,
  decodeStatus,
  encodeRequest,
  type Frame,
  FrameDecoder,
  RESPONSE,
  STREAM_ID_MAX,
} from "../protocol/index.ts";

type Methods = (typeof AgentService)["method"];
export type AgentMethod = keyof Methods;
export type AgentRequest<M extends AgentMethod> = MessageInitShape<Methods[M]["input"]>;
export type AgentResponse<M extends AgentMethod> = MessageShape<Methods[M]["output"]>;

export interface CallOptions {
  /** Until the answer must be there; `linkLimits.callTimeoutMs` unless told. Sent along, so that the agent gives up too. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Whatever can be asked as an agent is asked: one connection, or a client that replaces lost ones. */
export interface AgentCaller {
  /**
   * @throws BelljarError what the agent answered; `AGENT_TIMEOUT`, `AGENT_DISCONNECTED`, `AGENT_PROTOCOL`, `CANCELLED`,
   * `INVALID_ARGUMENT` for a request larger than a frame
   */
  call<M extends AgentMethod>(method: M, request: AgentRequest<M>, options?: CallOptions): Promise<AgentResponse<M>>;
}

interface PendingCall {
  readonly succeed: (payload: Uint8Array) => void;
  readonly fail: (error: BelljarError) => void;
}

export class Link implements AgentCaller {
  /** Settles, never rejects: undefined when this side closed the link. */
  readonly closed: Promise<BelljarError | undefined>;
  readonly #socket: Duplex;
  readonly #decoder = new FrameDecoder(RESPONSE);
  /** By stream id; undefined for a call that was abandoned and whose answer is thrown away. */
  readonly #calls = new Map<number, PendingCall | undefined>();
  /** Callers that wait for a place, or for room in the send queue, in the order they came. */
  readonly #waiting: (() => void)[] = [];
  readonly #settleClosed: (error: BelljarError | undefined) => void;
  #nextStreamId = 1;
  #ended: BelljarError | undefined;

  /** Takes over a connected socket whose handshake is done; `first` is what came behind the echo. */
  constructor(socket: Duplex, first: Buffer) {
    this.#socket = socket;
    const { promise, resolve } = Promise.withResolvers<BelljarError | undefined>();
    this.closed = promise;
    this.#settleClosed = resolve;
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("drain", () => this.#wake());
    socket.on("error", (cause) =>
      this.#end(new BelljarError("AGENT_DISCONNECTED", "the agent's socket failed", { cause })),
    );
    socket.on("close", () => this.#end(new BelljarError("AGENT_DISCONNECTED", "the agent's socket was closed")));
    if (first.length > 0) this.#receive(first);
    // The handshake has paused it, so that nothing came while nobody listened.
    socket.resume();
  }

  async call<M extends AgentMethod>(
    method: M,
    request: AgentRequest<M>,
    options: CallOptions = {},
  ): Promise<AgentResponse<M>> {
    throwIfAborted(options.signal);
    const descriptor = AgentService.method[method];
    const payload = toBinary(descriptor.input, create(descriptor.input, request));
    const timeoutMs = options.timeoutMs ?? linkLimits.callTimeoutMs;
    const answer = await publishStep("agent", method, () =>
      this.#exchange(descriptor.name, payload, timeoutMs, options.signal),
    );
    try {
      return decodeEnvelope(`response to ${descriptor.name}`, () =>
        fromBinary<Methods[M]["output"]>(descriptor.output, answer),
      );
    } catch (error) {
      this.#end(BelljarError.from(error));
      throw error;
    }
  }

  /** Closes the socket; calls under way fail with `AGENT_DISCONNECTED`. Idempotent. */
  async close(): Promise<void> {
    this.#end(undefined);
    if (!this.#socket.closed) await new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
  }

  async #exchange(
    method: string,
    payload: Uint8Array,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    // It may be rejected while this call still waits for room, which tells it in another way.
    promise.catch(() => {});
    let streamId: number | undefined;
    let given = false;
    const giveUp = (error: BelljarError): void => {
      given = true;
      if (streamId !== undefined && this.#calls.has(streamId)) this.#calls.set(streamId, undefined);
      reject(error);
      this.#wake();
    };
    const timer = setTimeout(() => {
      giveUp(
        new BelljarError("AGENT_TIMEOUT", `the agent did not answer ${method} within ${timeoutMs} ms`, {
          facts: { method, timeoutMs },
        }),
      );
    }, timeoutMs);
    const onAbort = (): void => giveUp(cancelledError(signal));
    signal?.addEventListener("abort", onAbort, { once: true });
    const send = (): void => {
      if (given) return;
      streamId = this.#takeStreamId();
      const frame = encodeRequest(streamId, { service: AgentService.typeName, method, payload, timeoutMs });
      this.#calls.set(streamId, { succeed: resolve, fail: reject });
      this.#socket.write(frame);
    };
    try {
      while (!given && this.#ended === undefined && !this.#hasRoom()) {
        await Promise.race([new Promise<void>((wake) => this.#waiting.push(wake)), promise]);
      }
      if (this.#ended !== undefined) throw this.#ended;
      send();
      return await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #hasRoom(): boolean {
    return this.#calls.size < linkLimits.callsInFlightMax && this.#socket.writableLength < linkLimits.sendQueueMaxBytes;
  }

  /** Lets those who wait look again: each takes what room it finds. */
  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #takeStreamId(): number {
    if (this.#nextStreamId > STREAM_ID_MAX) {
      // Ids are never used twice on one connection; a thousand million calls later it is time for the next one.
      this.#end(new BelljarError("AGENT_DISCONNECTED", "the link has used up its stream ids"));
    }
    if (this.#ended !== undefined) throw this.#ended;
    const streamId = this.#nextStreamId;
    this.#nextStreamId += 2;
    return streamId;
  }

  #receive(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    try {
      for (const frame of this.#decoder.push(chunk)) this.#settle(frame);
    } catch (error) {
      this.#end(BelljarError.from(error));
    }
  }

  #settle(frame: Frame): void {
    if (!this.#calls.has(frame.streamId)) {
      throw new BelljarError("AGENT_PROTOCOL", `the agent answered call ${frame.streamId}, which is not under way`);
    }
    const call = this.#calls.get(frame.streamId);
    this.#calls.delete(frame.streamId);
    this.#wake();
    if (call === undefined) return;
    try {
      const response = decodeResponse(frame);
      const error = decodeStatus(response.status);
      if (error === undefined) call.succeed(response.payload);
      else call.fail(error);
    } catch (error) {
      call.fail(BelljarError.from(error));
      throw error;
    }
  }

  #end(error: BelljarError | undefined): void {
    if (this.#ended !== undefined) return;
    this.#ended = error ?? new BelljarError("AGENT_DISCONNECTED", "the link to the agent was closed");
    for (const call of this.#calls.values()) call?.fail(this.#ended);
    this.#calls.clear();
    this.#wake();
    this.#socket.destroy();
    this.#settleClosed(error);
  }
}
