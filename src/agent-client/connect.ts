/**
 * Makes a connection to the agent: socket, handshake, `Hello`. Tried again until the guest answers, since it may still boot;
 * a guest that speaks another version, or that breaks the protocol in its first answer, is not asked twice.
 */
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError, type Log, linkLimits, throwIfAborted, VERSION, withDeadline } from "../base/index.ts";
import { cleanMessage, EchoScanner, encodeHello, type HelloResponse, PROTOCOL_VERSION } from "../protocol/index.ts";
import { type AgentCaller, Link } from "./link.ts";

export interface ConnectOptions {
  readonly socketPath: string;
  /** Until the agent must have answered, all tries together. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
  readonly hostVersion?: string;
}

/** What the agent says about itself and its guest; words are cleaned, and for people only. */
export interface AgentHello {
  readonly agentVersion: string;
  readonly kernelRelease: string;
  readonly uptimeMs: number;
  /** Changes whenever the agent's process starts anew. */
  readonly agentInstance: string;
  /** `thaw` takes what `configureSandbox` and `configureNetwork` bring. */
  readonly thawConfigures: boolean;
  /** There is `rehearse`. */
  readonly rehearses: boolean;
  /** There is `prepareProcess`. */
  readonly preparesProcesses: boolean;
}

export interface AgentLink extends AgentCaller {
  readonly hello: AgentHello;
  /** Settles, never rejects, when the link is no more: with the reason, or undefined when `close` was called. */
  readonly closed: Promise<BelljarError | undefined>;
  close(): Promise<void>;
}

export type ConnectAgent = (options: ConnectOptions) => Promise<AgentLink>;

/** @throws BelljarError `AGENT_TIMEOUT`, `AGENT_VERSION`, `AGENT_PROTOCOL`, `CANCELLED` */
export const connectAgent: ConnectAgent = async (options) => {
  let lastFailure: unknown;
  try {
    return await withDeadline(
      {
        timeoutMs: options.timeoutMs,
        what: "waiting for the guest's agent",
        signal: options.signal,
        reason: "AGENT_TIMEOUT",
      },
      async (signal) => {
        // Each try waits longer than the one before: a guest under load may take its time, and finds every hello at last.
        for (let handshakeMs: number = linkLimits.handshakeTimeoutMs; ; ) {
          try {
            return await connectOnce(options, handshakeMs, signal);
          } catch (error) {
            throwIfAborted(signal);
            if (error instanceof BelljarError && !isWorthAnotherTry(error)) throw error;
            lastFailure = error;
            options.log.debug("the agent does not answer yet", { cause: String(error) });
          }
          handshakeMs = Math.min(2 * handshakeMs, linkLimits.handshakeTimeoutMaxMs);
          await sleep(linkLimits.connectRetryMs, undefined, { signal });
        }
      },
    );
  } catch (error) {
    if (!(error instanceof BelljarError) || error.reason !== "AGENT_TIMEOUT" || lastFailure === undefined) throw error;
    throw new BelljarError("AGENT_TIMEOUT", error.message, { facts: error.facts, cause: lastFailure });
  }
};

function isWorthAnotherTry(error: BelljarError): boolean {
  return error.reason === "AGENT_DISCONNECTED" || error.reason === "AGENT_TIMEOUT";
}

async function connectOnce(options: ConnectOptions, handshakeMs: number, signal: AbortSignal): Promise<AgentLink> {
  const socket = await openSocket(options.socketPath, signal);
  let link: Link;
  try {
    const first = await shakeHands(socket, handshakeMs, signal);
    link = new Link(socket, first);
  } catch (error) {
    socket.destroy();
    throw error;
  }
  try {
    const answer = await link.call(
      "hello",
      { protocolVersion: PROTOCOL_VERSION, hostVersion: options.hostVersion ?? VERSION },
      { timeoutMs: Math.min(linkLimits.callTimeoutMs, options.timeoutMs), signal },
    );
    checkVersion(answer.protocolVersion);
    return {
      hello: readHello(answer),
      closed: link.closed,
      call: (method, request, callOptions) => link.call(method, request, callOptions),
      close: () => link.close(),
    };
  } catch (error) {
    await link.close();
    throw error;
  }
}

function openSocket(path: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    throwIfAborted(signal);
    const socket = connect(path);
    const onAbort = (): void => void socket.destroy(new BelljarError("CANCELLED", "the connection was abandoned"));
    signal.addEventListener("abort", onAbort, { once: true });
    const failed = (cause: Error): void => {
      signal.removeEventListener("abort", onAbort);
      reject(new BelljarError("AGENT_DISCONNECTED", "the agent's socket cannot be reached", { cause }));
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.off("error", failed);
      signal.removeEventListener("abort", onAbort);
      resolve(socket);
    });
  });
}

/**
 * Sends a hello and waits for its echo; answers what came behind it. A try that brings nothing is given up early.
 *
 * Data and the news that a host has come or gone reach the guest by different ways: it may hear of the end of the connection
 * before this one when it has this one's hello already, and drop it. Then it takes a further hello. Only the last one's echo counts:
 * nothing of the handshake can come after it.
 */
async function shakeHands(socket: Socket, timeoutMs: number, signal: AbortSignal): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  let scanner: EchoScanner | undefined;
  let repeatTimer: NodeJS.Timeout | undefined;
  const sayHello = (waitMs: number): void => {
    const nonce = randomBytes(16).toString("hex");
    scanner = new EchoScanner(nonce);
    socket.write(encodeHello({ nonce, version: PROTOCOL_VERSION }));
    repeatTimer = setTimeout(() => sayHello(Math.min(2 * waitMs, linkLimits.helloRepeatMaxMs)), waitMs);
  };
  const onData = (chunk: Buffer): void => {
    const result = scanner?.push(chunk);
    if (result === undefined || result.kind === "waiting") return;
    // Whatever comes before the link listens has to wait for it.
    socket.pause();
    if (result.kind === "flooded") {
      const message = `the guest sent more than ${linkLimits.nonceSkipMaxBytes} bytes instead of an echo`;
      reject(new BelljarError("AGENT_PROTOCOL", message));
      return;
    }
    try {
      checkVersion(result.line.version);
      resolve(result.rest);
    } catch (error) {
      reject(error);
    }
  };
  const onEnd = (cause?: unknown): void => {
    reject(new BelljarError("AGENT_DISCONNECTED", "the agent's socket was closed during the handshake", { cause }));
  };
  socket.on("data", onData);
  socket.on("error", onEnd);
  socket.on("close", onEnd);
  try {
    sayHello(linkLimits.helloRepeatMs);
    return await withDeadline({ timeoutMs, what: "the handshake", signal, reason: "AGENT_TIMEOUT" }, () => promise);
  } finally {
    clearTimeout(repeatTimer);
    socket.off("data", onData);
    socket.off("error", onEnd);
    socket.off("close", onEnd);
    // A destroyed socket may still report an error; nobody is left to be told.
    socket.on("error", () => {});
  }
}

function checkVersion(agentVersion: number): void {
  if (agentVersion === PROTOCOL_VERSION) return;
  throw new BelljarError(
    "AGENT_VERSION",
    `this host speaks version ${PROTOCOL_VERSION} of the protocol, the agent in the guest speaks version ${agentVersion}`,
    { facts: { hostProtocol: PROTOCOL_VERSION, agentProtocol: agentVersion } },
  );
}

function readHello(answer: HelloResponse): AgentHello {
  return {
    agentVersion: cleanMessage(answer.agentVersion),
    kernelRelease: cleanMessage(answer.kernelRelease),
    uptimeMs: Number(BigInt.asUintN(53, answer.uptimeMs)),
    agentInstance: cleanMessage(answer.agentInstance),
    thawConfigures: answer.thawConfigures,
    rehearses: answer.rehearses,
    preparesProcesses: answer.preparesProcesses,
  };
}
