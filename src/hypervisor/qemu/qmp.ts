/**
 * Client of QMP, QEMU's control protocol: a line of JSON per message. QEMU greets, takes `qmp_capabilities`, and then answers
 * commands (matched by id) and tells events. A guest that has taken over its VMM speaks here, so a line has a largest length
 * and every field is checked; the first message that breaks the protocol ends the connection, and every call with it.
 *
 * Invariants: each call settles once, by its answer, its deadline, its signal or the end of the connection. Events that come
 * while nobody listens wait for the next listener: a guest may end between our connecting and our listening.
 */
import { connect, type Socket } from "node:net";
import {
  BelljarError,
  cancelledError,
  type Field,
  hasErrno,
  parseJson,
  publishStep,
  throwIfAborted,
  vmmLimits,
} from "../../base/index.ts";
import type { QemuObject } from "./plug-parts.ts";

export interface QmpEvent {
  readonly name: string;
  readonly data: Field;
  /** By the host's clock, in milliseconds since the epoch, with fractions; undefined when QEMU could not read it. */
  readonly atMs: number | undefined;
}

export interface QmpOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

interface Call {
  readonly command: string;
  readonly resolve: (result: Field) => void;
  readonly reject: (error: unknown) => void;
}

export class QmpClient {
  /** Settles, never rejects, when the connection is no more; with the reason when QEMU broke the protocol. */
  readonly closed: Promise<BelljarError | undefined>;
  readonly #socket: Socket;
  readonly #calls = new Map<number, Call>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #unheard: QmpEvent[] = [];
  readonly #greeting: Call & { readonly promise: Promise<Field> };
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #nextId = 1;
  #end: BelljarError | undefined;
  #broken: BelljarError | undefined;

  /** Takes over a connected socket; `handshake` comes next. */
  constructor(socket: Socket) {
    this.#socket = socket;
    this.#greeting = { command: "greeting", ...Promise.withResolvers<Field>() };
    // Whoever waits for it gets the rejection; if nobody does, it is nobody's error.
    this.#greeting.promise.catch(() => {});
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("error", () => {});
    const { promise, resolve } = Promise.withResolvers<BelljarError | undefined>();
    this.closed = promise;
    socket.on("close", () => {
      this.#fail(new BelljarError("VMM_DIED", "QEMU closed its control connection"));
      resolve(this.#broken);
    });
  }

  /** Waits for the greeting and enters command mode. Answers QEMU's version. */
  async handshake(options: QmpOptions = {}): Promise<QemuVersion> {
    const greeting = await this.#within(this.#greeting.promise, "greeting", options);
    const version = greeting.field("version").field("qemu");
    const decoded: QemuVersion = {
      major: version.field("major").integer({ min: 0 }),
      minor: version.field("minor").integer({ min: 0 }),
      micro: version.field("micro").integer({ min: 0 }),
    };
    await this.execute("qmp_capabilities", {}, options);
    return decoded;
  }

  /**
   * @throws BelljarError `VMM_PROTOCOL` when QEMU refuses (fact `qmpClass`) or answers with something else than QMP,
   * `VMM_DIED` when the connection ends, `DEADLINE_EXCEEDED`, `CANCELLED`.
   */
  async execute(command: string, args: QemuObject = {}, options: QmpOptions = {}): Promise<Field> {
    throwIfAborted(options.signal);
    return await publishStep("qmp", command, () => this.#exchange(command, args, options));
  }

  async #exchange(command: string, args: QemuObject, options: QmpOptions): Promise<Field> {
    if (this.#end !== undefined) throw this.#end;
    const id = this.#nextId;
    this.#nextId += 1;
    const { promise, resolve, reject } = Promise.withResolvers<Field>();
    this.#calls.set(id, { command, resolve, reject });
    try {
      // Each byte costs QEMU seven system calls: nothing is said that it would assume.
      const request =
        Object.keys(args).length === 0 ? { execute: command, id } : { execute: command, arguments: args, id };
      this.#socket.write(`${JSON.stringify(request)}\n`);
      return await this.#within(promise, command, options);
    } finally {
      this.#calls.delete(id);
    }
  }

  /** Calls back for every event, those that waited first, until the answered function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    const unheard = this.#unheard;
    this.#unheard = [];
    for (const event of unheard) this.#deliver(event, listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#listeners.clear();
    this.#fail(new BelljarError("VMM_DIED", "the control connection to QEMU was let go"));
    this.#socket.destroy();
  }

  async #within(work: Promise<Field>, command: string, options: QmpOptions): Promise<Field> {
    const timeoutMs = options.timeoutMs ?? vmmLimits.commandTimeoutMs;
    const { promise: end, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      reject(
        new BelljarError("DEADLINE_EXCEEDED", `QEMU did not answer ${command} within ${timeoutMs} ms`, {
          facts: { command, timeoutMs },
        }),
      );
    }, timeoutMs);
    const onAbort = (): void => reject(cancelledError(options.signal));
    options.signal?.addEventListener("abort", onAbort, { once: true });
    // A signal that has fired already fires no event any more.
    if (options.signal?.aborted === true) onAbort();
    try {
      return await Promise.race([work, end]);
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener("abort", onAbort);
    }
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    while (this.#end === undefined) {
      const newline = rest.indexOf(10);
      const bytes = this.#partialBytes + (newline === -1 ? rest.length : newline);
      if (bytes > vmmLimits.qmpLineMaxBytes) {
        this.#break(
          new BelljarError("VMM_PROTOCOL", `QEMU sent a line of more than ${vmmLimits.qmpLineMaxBytes} bytes`),
        );
        return;
      }
      if (newline === -1) {
        if (rest.length > 0) this.#partial.push(rest);
        this.#partialBytes = bytes;
        return;
      }
      const line = Buffer.concat([...this.#partial, rest.subarray(0, newline)]).toString("utf8");
      this.#partial = [];
      this.#partialBytes = 0;
      rest = rest.subarray(newline + 1);
      try {
        this.#dispatch(line);
      } catch (error) {
        this.#break(
          new BelljarError("VMM_PROTOCOL", `QEMU sent something that is not QMP: ${shown(line)}`, { cause: error }),
        );
      }
    }
  }

  #dispatch(line: string): void {
    if (line.trim() === "") return;
    const message = parseJson(line, "message", "VMM_PROTOCOL");
    if (!message.field("QMP").isAbsent) {
      this.#greeting.resolve(message.field("QMP"));
      return;
    }
    const event = message.field("event").optional((field) => field.string({ maxLength: 128 }));
    if (event !== undefined) {
      this.#tell({ name: event, data: message.field("data"), atMs: timeOf(message.field("timestamp")) });
      return;
    }
    const error = message.field("error");
    const failure = error.optional((field) => ({
      qmpClass: field.field("class").string({ maxLength: 128 }),
      description: cleaned(field.field("desc").string({ maxLength: 64 * 1024 })),
    }));
    if (failure === undefined && message.field("return").isAbsent) throw message.expected("a QMP message");
    const id = message.field("id").optional((field) => field.integer());
    // An answer without an id is QEMU's refusal of a line that it could not parse; one with an unknown id came too late.
    const call = id === undefined ? undefined : this.#calls.get(id);
    if (id === undefined) throw message.expected("an answer with an id");
    if (call === undefined) return;
    if (failure === undefined) call.resolve(message.field("return"));
    else {
      call.reject(
        new BelljarError("VMM_PROTOCOL", `QEMU refused ${call.command}: ${failure.description}`, {
          facts: { command: call.command, qmpClass: failure.qmpClass },
        }),
      );
    }
  }

  #tell(event: QmpEvent): void {
    if (this.#listeners.size === 0) this.#unheard = [...this.#unheard, event].slice(-UNHEARD_MAX);
    for (const listener of this.#listeners) this.#deliver(event, listener);
  }

  #deliver(event: QmpEvent, listener: (event: QmpEvent) => void): void {
    try {
      listener(event);
    } catch (error) {
      this.#break(new BelljarError("VMM_PROTOCOL", `QEMU told a malformed ${cleaned(event.name)}`, { cause: error }));
    }
  }

  #break(error: BelljarError): void {
    this.#broken = error;
    this.#fail(error);
    this.#socket.destroy();
  }

  #fail(error: BelljarError): void {
    this.#end ??= error;
    this.#greeting.reject(this.#end);
    for (const call of this.#calls.values()) call.reject(this.#end);
    this.#calls.clear();
  }
}

/** Events that are kept while nobody listens. */
const UNHEARD_MAX = 64;

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

/** Connects to a Unix socket; undefined when nobody listens there (yet). */
export async function tryConnect(path: string): Promise<Socket | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket | undefined>();
  const socket = connect(path);
  socket.once("connect", () => resolve(socket));
  socket.once("error", (error) => {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ECONNREFUSED") || hasErrno(error, "EAGAIN")) resolve(undefined);
    else reject(error);
  });
  return await promise;
}

/** QEMU says -1 for what it does not know. */
function timeOf(timestamp: Field): number | undefined {
  return timestamp.optional((time) => {
    const [seconds, micros] = [time.field("seconds").integer(), time.field("microseconds").integer()];
    return seconds < 0 || micros < 0 ? undefined : seconds * 1_000 + micros / 1_000;
  });
}

function shown(line: string): string {
  const text = cleaned(line);
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}...` : text);
}

function cleaned(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ").trim();
}
