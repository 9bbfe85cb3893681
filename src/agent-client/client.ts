/**
 * The agent of one sandbox for as long as the VM lives: makes the link when it is first needed, and a new one when it was lost.
 * Calls that may be repeated without harm are; others fail with `AGENT_DISCONNECTED`, since nobody can say whether they were
 * carried out.
 */
import { BelljarError } from "../base/index.ts";
import { type AgentHello, type AgentLink, type ConnectAgent, type ConnectOptions, connectAgent } from "./connect.ts";
import type { AgentCaller, AgentMethod, AgentRequest, AgentResponse, CallOptions } from "./link.ts";

/** By offset, by id, or only asking: the second time changes nothing. */
const repeatable: ReadonlySet<AgentMethod> = new Set<AgentMethod>([
  "configureSandbox",
  "configureNetwork",
  "getNetwork",
  "fitResources",
  "freeze",
  "thaw",
  "getGuestStats",
  "findDevice",
  "removeContainer",
  "listContainers",
  "pauseContainer",
  "resumeContainer",
  "updateContainer",
  "growStorage",
  "getContainerStats",
  "prepareProcess",
  "waitProcess",
  "resizeTerminal",
  "releaseProcess",
  "readOutput",
  "writeInput",
  "statFile",
  "listDirectory",
  "openFile",
  "readFile",
  "writeFile",
  "commitFile",
  "closeFile",
  "makeLink",
  "setFileAttributes",
  "watchFile",
]);

const SIGKILL = 9;

function isRepeatable(method: AgentMethod, request: object): boolean {
  // What is dead does not die again; of other signals a program may count how many come.
  if (method === "signalProcess") return "signal" in request && request.signal === SIGKILL;
  if (method === "makeDirectory") return "parents" in request && request.parents === true;
  // A reading that follows another one continues where that one ended, and the answer to that one may be lost.
  return repeatable.has(method) && !("follow" in request && request.follow === true);
}

/** A call is not repeated for ever: a guest that loses every link is as good as dead. */
const TRIES_MAX = 5;

export class AgentClient implements AgentCaller {
  readonly #options: ConnectOptions;
  readonly #connect: ConnectAgent;
  #link: Promise<AgentLink> | undefined;
  #instance: string | undefined;
  #closed = false;

  constructor(options: ConnectOptions, connect: ConnectAgent = connectAgent) {
    this.#options = options;
    this.#connect = connect;
  }

  /** Makes the link unless it is there. @throws BelljarError what `connectAgent` throws */
  async hello(): Promise<AgentHello> {
    return (await this.#current()).hello;
  }

  async call<M extends AgentMethod>(
    method: M,
    request: AgentRequest<M>,
    options?: CallOptions,
  ): Promise<AgentResponse<M>> {
    for (let tries = 1; ; tries += 1) {
      const link = await this.#current();
      try {
        return await link.call(method, request, options);
      } catch (error) {
        if (!(error instanceof BelljarError) || error.reason !== "AGENT_DISCONNECTED") throw error;
        if (this.#closed || tries >= TRIES_MAX || !isRepeatable(method, request)) throw error;
        this.#options.log.debug("the link to the agent was lost", { method, cause: error.message });
      }
    }
  }

  /** Idempotent; never throws. */
  async close(): Promise<void> {
    this.#closed = true;
    const link = await this.#link?.catch(() => undefined);
    await link?.close();
  }

  #current(): Promise<AgentLink> {
    if (this.#closed) return Promise.reject(new BelljarError("AGENT_DISCONNECTED", "the link to the agent was closed"));
    this.#link ??= this.#reconnect();
    return this.#link;
  }

  async #reconnect(): Promise<AgentLink> {
    try {
      const link = await this.#connect(this.#options);
      void link.closed.then(() => {
        this.#link = undefined;
      });
      const instance = link.hello.agentInstance;
      if (this.#instance !== undefined && this.#instance !== instance) {
        // Its processes and their offsets are gone with the old one.
        await link.close();
        throw new BelljarError(
          "AGENT_FAILED",
          "the guest's agent has started anew and knows nothing of its containers",
        );
      }
      this.#instance = instance;
      return link;
    } catch (error) {
      this.#link = undefined;
      throw error;
    }
  }
}
