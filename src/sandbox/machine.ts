/**
 * A sandbox's VM and the agent in it, for as long as this process has them: started or taken over, ended or let go. Nobody waits for
 * an answer from the dead: every call fails with the VM's end when that comes first.
 */
import { randomBytes } from "node:crypto";
import {
  type AgentCaller,
  AgentClient,
  type AgentMethod,
  type AgentRequest,
  type AgentResponse,
  type CallOptions,
  type ConnectAgent,
} from "../agent-client/index.ts";
import {
  BelljarError,
  type Clock,
  cancelledError,
  checkpointLimits,
  Ending,
  type Log,
  messageChain,
  sandboxLimits,
  throwIfAborted,
} from "../base/index.ts";
import type { Vm, VmEnd } from "../hypervisor/interface.ts";
import { encodeWake, type HookFailure, type PlannedWake, WAKE_ENTROPY_BYTES } from "../protocol/index.ts";
import { dnsLines, type SandboxSettings } from "./config.ts";
import { type GuestNamed, inGuestWords } from "./guest-ids.ts";
import { resumeWith, rouse } from "./resume-with.ts";
import { type ReturningState, readWakePlan, type WakeWords, type WayBack, wakeSteps } from "./returning.ts";

export interface MachineDeps {
  readonly connectAgent: ConnectAgent;
  readonly clock: Clock;
  readonly log: Log;
  /** As the host has them now. */
  readonly containers?: (() => readonly GuestNamed[]) | undefined;
}

export interface MachineOptions {
  readonly id: string;
  readonly settings: SandboxSettings;
  /** Whom the guest asks for names where the settings name nobody. */
  readonly nameServers?: readonly string[] | undefined;
  /** Names that its network gives others. */
  readonly hostLines?: (() => readonly string[]) | undefined;
  /** Of a VM that was taken over: any other one knows nothing of its containers. */
  readonly agentInstance?: string | undefined;
  /** It is a copy whose agent has not been told who it is, and whose containers may stand still. */
  readonly returning?: Returning | undefined;
}

export interface Returning extends ReturningState {
  /** When its clock stood still, in milliseconds since the epoch, if that is known and the clock was not set since. */
  readonly stoppedAtMs?: number | undefined;
  readonly network: () => AgentRequest<"configureNetwork"> | undefined;
  /** The wake program may have begun to change its network, and not ended. */
  readonly isInDoubt?: boolean | undefined;
}

const NS_PER_MS = 1_000_000n;

export class Machine implements AgentCaller {
  readonly vm: Vm;
  readonly #deps: MachineDeps;
  readonly #options: MachineOptions;
  readonly #agent: AgentClient;
  readonly #lifetime = new AbortController();
  readonly #died = new Ending();
  #sharedMemoryBytes: number;
  #returning: Returning | undefined;
  #resumedAtMs: number | undefined;
  #hookFailures: readonly HookFailure[] = [];
  #ready: Promise<string> | undefined;
  /** Of a copy that need not be asked soon: until it is. */
  #meeting: PromiseWithResolvers<void> | undefined;
  /** Of a copy whose containers run: its agent has said hello, and is being told what has become of it. */
  #isMet = false;

  constructor(deps: MachineDeps, vm: Vm, options: MachineOptions) {
    this.vm = vm;
    this.#deps = deps;
    this.#options = options;
    this.#sharedMemoryBytes = options.settings.sharedMemoryBytes ?? 0;
    this.#returning = options.returning;
    this.#agent = new AgentClient(
      {
        socketPath: vm.agentSocketPath,
        timeoutMs: options.settings.bootTimeoutMs,
        signal: this.#lifetime.signal,
        log: deps.log,
      },
      deps.connectAgent,
    );
    void vm.ended.then((end) => this.#died.end(endError(options.id, end)));
  }

  get log(): Log {
    return this.#deps.log;
  }

  /** Fires when the VM has ended or was let go. */
  get lifetime(): AbortSignal {
    return this.#lifetime.signal;
  }

  /**
   * Waits for the agent, and answers which start of it this is.
   * @throws BelljarError `AGENT_TIMEOUT`, `AGENT_VERSION`, `AGENT_FAILED`, `GUEST_PANIC`, `VMM_DIED`, `CANCELLED`
   */
  async agent(signal?: AbortSignal): Promise<string> {
    try {
      this.#ready ??= this.#introduce();
      return await this.whileAlive(abortable(this.#ready, signal));
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      if (error.reason !== "CANCELLED") this.#ready = undefined;
      throw this.#withConsole(error);
    } finally {
      this.#isMet = false;
      this.#meeting?.resolve();
      this.#meeting = undefined;
    }
  }

  /**
   * For what can wait until somebody else has asked the agent of a copy for the first time, and has to do with its containers alone, which
   * run by then: it does not wait until the agent has heard the rest.
   */
  readonly patient: AgentCaller = {
    call: async (method, request, options) => {
      if (this.#meeting !== undefined) {
        const over = AbortSignal.any([this.lifetime, ...(options?.signal === undefined ? [] : [options.signal])]);
        await this.whileAlive(abortable(this.#meeting.promise, over));
      }
      return this.#isMet ? await this.#ask(method, request, options) : await this.call(method, request, options);
    },
  };

  async call<M extends AgentMethod>(
    method: M,
    request: AgentRequest<M>,
    options?: CallOptions,
  ): Promise<AgentResponse<M>> {
    await this.agent(options?.signal);
    return await this.#ask(method, request, options);
  }

  async #ask<M extends AgentMethod>(
    method: M,
    request: AgentRequest<M>,
    options?: CallOptions,
  ): Promise<AgentResponse<M>> {
    const words = inGuestWords(request, this.#deps.containers?.() ?? []);
    return await this.whileAlive(this.#agent.call(method, words, options));
  }

  /** Tells the guest who it is and what time it is: at the beginning, and whenever it may have lost time. */
  async configure(): Promise<void> {
    const words = { sandboxId: this.#options.id, ...this.#identity(undefined) };
    const { realtimeNs } = await this.#agent.call("configureSandbox", words);
    // A call that was long on its way brought a time that was old.
    if (this.#isOff(realtimeNs)) await this.#setClock(sandboxLimits.clockTriesMax - 1);
  }

  /** All but the id, which a thaw says by itself. */
  #identity(missedMs: number | undefined): AgentRequest<"configureSandbox"> {
    const { settings, nameServers, hostLines } = this.#options;
    const clock =
      missedMs === undefined
        ? { realtimeNs: this.#realtimeNs() }
        : { clockAdvanceNs: BigInt(Math.max(0, Math.round(missedMs))) * NS_PER_MS };
    return {
      hostname: settings.hostname,
      ...clock,
      entropy: randomBytes(WAKE_ENTROPY_BYTES),
      dnsLines: dnsLines(settings, nameServers),
      hostLines: [...(hostLines?.() ?? [])],
      replaceHosts: true,
      sharedMemoryBytes: BigInt(this.#sharedMemoryBytes),
    };
  }

  async #setClock(triesMax: number): Promise<void> {
    for (let tries = 0; tries < triesMax; tries += 1) {
      const { realtimeNs } = await this.#agent.call("configureSandbox", { realtimeNs: this.#realtimeNs() });
      if (!this.#isOff(realtimeNs)) return;
    }
  }

  #realtimeNs(): bigint {
    return BigInt(this.#deps.clock.nowMs()) * NS_PER_MS;
  }

  /** None is the word of a guest that does not tell. */
  #isOff(realtimeNs: bigint, sinceMs = this.#deps.clock.nowMs()): boolean {
    const guestMs = Number(realtimeNs / NS_PER_MS);
    const { clockOffMaxMs } = sandboxLimits;
    const isWithin = guestMs >= sinceMs - clockOffMaxMs && guestMs <= this.#deps.clock.nowMs() + clockOffMaxMs;
    return realtimeNs !== 0n && !isWithin;
  }

  /**
   * Everything in the containers stands still until `thaw`.
   * @param saving hooks of containers are told: the answer says which of them failed, and how a copy may be woken
   */
  async freeze(
    saving: boolean,
    signal?: AbortSignal,
  ): Promise<{ readonly hookFailures: readonly HookFailure[]; readonly wake: PlannedWake | undefined }> {
    const options = { signal, timeoutMs: checkpointLimits.freezeTimeoutMs };
    const answer = await this.call("freeze", { saving }, options);
    return { hookFailures: answer.hookFailures, wake: readWakePlan(answer) };
  }

  /** It runs on, and is told what has happened to it meanwhile. Answers which hooks of containers failed. */
  async thaw(request: AgentRequest<"thaw">, signal?: AbortSignal): Promise<readonly HookFailure[]> {
    return (await this.call("thaw", request, { signal })).hookFailures;
  }

  /**
   * Lets the CPUs of a copy run, and its containers as soon as may be. Answers when they were told who they are, in milliseconds since the
   * epoch; undefined when the guest's agent has to do it, which does so when it is first asked for.
   */
  async comeBack(way: WayBack | undefined, signal?: AbortSignal): Promise<number | undefined> {
    const returning = this.#returning;
    const toldAtMs = this.#deps.clock.nowMs();
    const message =
      returning === undefined || way === undefined ? undefined : this.#wakeMessage(way, returning, toldAtMs);
    const isTold = await this.whileAlive(resumeWith(this.vm, message, this.log, signal));
    this.#resumedAtMs = this.#deps.clock.nowMs();
    if (returning === undefined) return undefined;
    if (!isTold) {
      this.#returning = { ...returning, isInDoubt: message !== undefined };
      return undefined;
    }
    this.#returning = { ...returning, toldAtMs };
    this.#meeting = Promise.withResolvers();
    this.log.debug("a copy was brought back by the guest's wake program", { networkSteps: way?.networkSteps.length });
    return toldAtMs;
  }

  /** What those of a copy's containers said that were to renew something; known when the agent has answered. */
  get hookFailures(): readonly HookFailure[] {
    return this.#hookFailures;
  }

  #wakeMessage(way: WayBack, { stoppedAtMs, ...news }: Returning, toldAtMs: number): Buffer | undefined {
    const { hostname, dnsLines: dns = [], hostLines: hosts = [] } = this.#identity(0);
    const words: WakeWords = {
      event: news.event,
      generation: String(news.generation),
      sandbox: this.#options.id,
      time: new Date(toldAtMs).toISOString(),
      "machine-id": news.machineId,
      "boot-id": news.bootId,
      hostname: hostname ?? "",
      hosts: asText(hosts),
      // As for the agent: none leaves what there is.
      dns: dns.length === 0 ? undefined : asText(dns),
    };
    const clock = stoppedAtMs === undefined ? { realtimeMs: toldAtMs } : { advanceMs: toldAtMs - stoppedAtMs };
    try {
      const steps = wakeSteps(way, words, news.endProcesses);
      return encodeWake({ entropy: randomBytes(WAKE_ENTROPY_BYTES), clock, steps });
    } catch (error) {
      this.log.warn("the guest's plan for a return cannot be followed", { cause: messageChain(error).join(": ") });
      return undefined;
    }
  }

  /** Names of others have changed. */
  async renameHosts(): Promise<void> {
    await this.call("configureSandbox", { hostLines: [...(this.#options.hostLines?.() ?? [])], replaceHosts: true });
  }

  /** Gives the /dev/shm that containers share another size, now and whenever the guest is configured. */
  async shareMemory(sharedMemoryBytes: number): Promise<void> {
    await this.call("configureSandbox", { sharedMemoryBytes: BigInt(sharedMemoryBytes) });
    this.#sharedMemoryBytes = sharedMemoryBytes;
  }

  /** Fails with the VM's end if that comes before the work's. */
  async whileAlive<T>(work: Promise<T>): Promise<T> {
    return await this.#died.during(work);
  }

  /** Ends the VM, whatever it is doing. */
  async kill(): Promise<void> {
    this.#lifetime.abort();
    await this.#agent.close();
    await this.vm.kill();
  }

  /** Lets go; the VM runs on. */
  async release(): Promise<void> {
    this.#lifetime.abort();
    await this.#agent.close();
    await this.vm.release();
  }

  async #introduce(): Promise<string> {
    await this.#rouse();
    const { agentInstance, thawConfigures } = await this.#agent.hello();
    const expected = this.#options.agentInstance;
    if (expected !== undefined && expected !== agentInstance) {
      throw new BelljarError("AGENT_FAILED", "the guest's agent has started anew and knows nothing of its containers", {
        facts: { expected, found: agentInstance },
      });
    }
    if ((this.#returning?.toldAtMs ?? 0) !== 0) {
      this.#isMet = true;
      this.#meeting?.resolve();
    }
    if (this.#returning === undefined) await this.configure();
    else await this.#tell(this.#returning, thawConfigures);
    this.#returning = undefined;
    return agentInstance;
  }

  /** One that does not go on will not answer, either. */
  async #rouse(): Promise<void> {
    const { rest: path } = this.#returning ?? {};
    if (path === undefined) return;
    const message = encodeWake({
      entropy: randomBytes(WAKE_ENTROPY_BYTES),
      steps: [{ kind: "write", path, text: "0" }],
    });
    await rouse(this.vm, message, this.lifetime).catch((error: unknown) => {
      this.log.warn("the agent of a copy was not told to go on", { cause: messageChain(error).join(": ") });
    });
  }

  /**
   * The agent of a copy learns what has become of it, and its containers run then. In one call, since each of them is slow in a guest that
   * has just been started: code that has not run in it yet is translated first, under emulation.
   */
  async #tell(returning: Returning, inOneCall: boolean): Promise<void> {
    const { event, generation, machineId = "", bootId = "", endProcesses, toldAtMs = 0, stoppedAtMs } = returning;
    const news = { event, sandboxId: this.#options.id, generation, machineId, bootId, endProcesses };
    const words = returning.network();
    const network = words && { ...words, setAgain: returning.isInDoubt === true };
    if (!inOneCall) {
      await this.configure();
      if (network !== undefined) await this.#agent.call("configureNetwork", network);
      this.#hookFailures = (await this.#agent.call("thaw", news)).hookFailures;
      return;
    }
    // One that was told has been given the time, too.
    const awayMs =
      stoppedAtMs === undefined || this.#resumedAtMs === undefined ? undefined : this.#resumedAtMs - stoppedAtMs;
    const missedMs = toldAtMs === 0 ? awayMs : 0;
    const askedMs = this.#deps.clock.nowMs();
    const { hookFailures, realtimeNs } = await this.#agent.call("thaw", {
      ...news,
      toldAtMs: BigInt(toldAtMs),
      sandbox: this.#identity(missedMs),
      ...(network === undefined ? {} : { network }),
    });
    this.#hookFailures = hookFailures;
    // A time that was set by what was missed is right whenever it was read; one that was told is old by the time that it took.
    if (this.#isOff(realtimeNs, missedMs === undefined ? undefined : askedMs)) {
      await this.#setClock(sandboxLimits.clockTriesMax);
    }
  }

  /** An agent that does not answer has no words of its own; the guest's console may. */
  #withConsole(error: BelljarError): BelljarError {
    if (error.reason !== "AGENT_TIMEOUT") return error;
    const tail = this.vm.consoleTail().trim();
    if (tail === "") return error;
    return new BelljarError(error.reason, `${error.message}; the guest's console says: ${tail}`, {
      facts: error.facts,
      cause: error.cause,
    });
  }
}

function asText(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

/** What became of a VM, for whoever waited for something of it. */
export function endError(id: string, end: VmEnd): BelljarError {
  switch (end.cause) {
    case "requested":
      return new BelljarError("VMM_DIED", `the VM of sandbox ${id} was ended while it was in use`);
    case "guest":
      return new BelljarError(
        end.panic ? "GUEST_PANIC" : "VMM_DIED",
        end.panic ? `the guest's kernel panicked: ${end.detail}` : `the guest powered off by itself: ${end.detail}`,
      );
    case "died":
      return new BelljarError("VMM_DIED", `the VM's process ended: ${end.detail}`);
  }
}

/** Stops waiting, not the work, when the signal fires. */
export async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  // Its own failure, later, is nobody's any more when the waiting ends before it began.
  work.catch(() => {});
  throwIfAborted(signal);
  if (signal === undefined) return await work;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledError(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
