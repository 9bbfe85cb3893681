/** Processes of one container: started, found again, read. */
import type { AgentCaller } from "../agent-client/index.ts";
import { BelljarError, checkContainerOperation, collectResult, linkLimits, streamLimits } from "../base/index.ts";
import {
  type Container,
  type ContainerState,
  changeContainer,
  checkSignal,
  type ExecRecord,
  type ProcessStatus,
  readOutputHistory,
  resolveEnvironment,
  sendSignal,
  stateOf,
  toStatus,
} from "../container/index.ts";
import { guestIdOf } from "../sandbox/index.ts";
import { FirstOutput } from "./first-output.ts";
import { endedError } from "./info.ts";
import type {
  AttachOptions,
  CallOptions,
  ExecOptions,
  ExecResult,
  LogOptions,
  LogRecord,
  OutputPiece,
  OutputRequest,
  ProcessHandle,
} from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";
import { type ProcessParts, RuntimeProcess } from "./process-handle.ts";
import { execRecords } from "./reconcile.ts";

export class Processes {
  readonly #managed: ManagedSandbox;
  readonly #container: Container;

  constructor(managed: ManagedSandbox, container: Container) {
    this.#managed = managed;
    this.#container = container;
  }

  async spawn(command: readonly string[], options: ExecOptions = {}): Promise<ProcessHandle> {
    const { signal, stdin, terminalSize, cwd, endOnAbort = true, ...config } = options;
    const env = resolveEnvironment(config);
    const process = { ...config, env, command, workingDir: cwd };
    const record = await this.#container.exec(process, { signal, stdin, terminalSize });
    const handle = this.#handle(record, {}, { endSignal: endOnAbort ? signal : undefined });
    await handle.checkWanted();
    return handle;
  }

  /** Runs a command to its end and collects what it writes, as UTF-8. */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await collectResult(await this.spawn(command, options), options);
  }

  /** Its first process, whether it still runs or not. */
  attach(options: AttachOptions = {}): ProcessHandle {
    const { state } = this.#container;
    if (state.starts === 0) throw endedError(`container ${state.id}`, state.end);
    const offsets = startOffsets(options);
    const output = new FirstOutput(this.#managed.outputs, state.id, offsets);
    return new RuntimeProcess({
      containerId: state.id,
      id: "",
      pid: state.pid ?? 0,
      tty: state.config.tty === true,
      stdin: state.config.stdin === true,
      offsets,
      agent: this.#agent,
      readOutput: async (request, { signal }) => {
        using _reader = this.#managed.hibernation.activity.reader();
        return await output.read(request, signal);
      },
      waitForEnd: (waitMs, { signal }) => within(waitMs, signal, (either) => this.wait(either)),
      signal: (number) => this.#signal("", number),
      release: () => output.detach(),
    });
  }

  /** What its first process has written in its present start, as the host has it. */
  async *logs(options: LogOptions): AsyncGenerator<LogRecord> {
    const { sandbox, outputs } = this.#managed;
    const { id } = this.#container;
    const hasStarted = (): true | undefined => (stateOf(sandbox, id).starts > 0 ? true : undefined);
    if (hasStarted() === undefined) {
      if (options.follow !== true) return;
      await sandbox.until(hasStarted, options.signal);
    }
    yield* readOutputHistory(await outputs.log(id), options);
  }

  /** @throws BelljarError `PROCESS_NOT_FOUND` */
  async find(processId: string, options: AttachOptions = {}): Promise<ProcessHandle> {
    if (processId === "") return this.attach(options);
    const known = this.#container.state.processes.find((each) => each.id === processId);
    const record = known ?? (await this.#adopt(processId));
    if (record !== undefined) return this.#handle(record, options);
    const shown = JSON.stringify(processId.slice(0, 64));
    throw new BelljarError("PROCESS_NOT_FOUND", `container ${this.#container.id} has no process ${shown}`);
  }

  /** One that the guest was only starting when its owner died, and when this one asked for all there are. */
  async #adopt(processId: string): Promise<ExecRecord | undefined> {
    const { sandbox } = this.#managed;
    const { id, state } = this.#container;
    if (!sandbox.hasMachine || !state.inGuest || sandbox.state.state === "paused") return undefined;
    const { containers } = await sandbox.call("listContainers", {}, { timeoutMs: linkLimits.callTimeoutMs });
    const guest = containers.find((each) => each.containerId === guestIdOf(state));
    const record = guest && execRecords(guest).find((each) => each.id === processId);
    if (record === undefined) return undefined;
    await changeContainer(sandbox, id, (now) =>
      now.processes.some((each) => each.id === processId) ? now : { ...now, processes: [...now.processes, record] },
    );
    return record;
  }

  /** How its first process ended; waits until it has. */
  async wait(signal: AbortSignal | undefined): Promise<ProcessStatus> {
    const { sandbox } = this.#managed;
    return await sandbox.until(() => statusOf(stateOf(sandbox, this.#container.id)), signal);
  }

  /** What the present state does not allow is said before the guest is asked. */
  get #agent(): AgentCaller {
    const { sandbox } = this.#managed;
    return {
      call: (method, request, options) =>
        this.#managed.awake(async () => {
          const operation = method === "writeInput" ? "writeInput" : "resize";
          const { state, id } = this.#container.state;
          checkContainerOperation(operation, state, sandbox.state.state, id);
          return await sandbox.call(method, request, options);
        }, options?.signal),
    };
  }

  #handle(record: ExecRecord, options: AttachOptions, started?: ProcessParts["started"]): RuntimeProcess {
    const { sandbox } = this.#managed;
    const container = this.#container;
    const address = { containerId: container.id, processId: record.id };
    const wait = async (waitMs: number, { signal }: CallOptions): Promise<ProcessStatus | undefined> => {
      const answer = await whileAwake(this.#managed, waitMs, signal, (either) =>
        sandbox.call(
          "waitProcess",
          { ...address, waitMs: Math.min(waitMs, linkLimits.longPollMs) },
          { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal: either },
        ),
      );
      return answer?.ended === true ? toStatus(answer) : undefined;
    };
    const readOutput = async (request: OutputRequest, { signal }: CallOptions): Promise<OutputPiece> => {
      const answer = await whileAwake(this.#managed, request.waitMs, signal, (either) =>
        sandbox.call(
          "readOutput",
          {
            ...address,
            stream: request.stream,
            offset: request.offset,
            maxBytes: Math.min(request.maxBytes, streamLimits.chunkMaxBytes),
            waitMs: Math.min(request.waitMs, linkLimits.longPollMs),
            detach: request.detach === true,
            ...(request.acknowledged === undefined ? {} : { acknowledged: request.acknowledged }),
          },
          { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal: either },
        ),
      );
      if (answer === undefined) return { offset: request.offset, data: new Uint8Array(0), end: false };
      if (answer.offset < request.offset || answer.data.length > streamLimits.chunkMaxBytes) {
        throw new BelljarError("AGENT_PROTOCOL", "the agent answered with output that was not asked for");
      }
      return { offset: answer.offset, data: answer.data, end: answer.end };
    };
    return new RuntimeProcess({
      containerId: container.id,
      ...record,
      offsets: startOffsets(options),
      agent: this.#agent,
      readOutput,
      waitForEnd: wait,
      signal: (number) => this.#signal(record.id, number),
      release: () => container.release(record.id),
      started,
    });
  }

  async #signal(processId: string, number: number): Promise<void> {
    checkSignal(number);
    const { sandbox } = this.#managed;
    await this.#managed.awake(async () => {
      const { state, id } = this.#container.state;
      if (state === "stopped") return;
      checkContainerOperation("signal", state, sandbox.state.state, id);
      await sendSignal(sandbox, { containerId: id, processId, signal: number, all: false });
    });
  }
}

/** @throws BelljarError when it will never end, because it never ran */
function statusOf(state: ContainerState): ProcessStatus | undefined {
  if (state.status !== undefined) return state.status;
  if (state.state === "stopped" && state.pending === undefined) throw endedError(`container ${state.id}`, state.end);
  return undefined;
}

/**
 * Asks the guest what may be asked again without harm. In a paused sandbox nothing answers: undefined when it is paused for all of
 * the time, or is paused meanwhile.
 */
async function whileAwake<T>(
  { sandbox, hibernation }: ManagedSandbox,
  waitMs: number,
  signal: AbortSignal | undefined,
  ask: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const isAwake = (): true | undefined => (sandbox.state.state === "paused" ? undefined : true);
  if (isAwake() === undefined) {
    const woke = await within(waitMs, signal, (either) => sandbox.until(isAwake, either));
    if (woke === undefined) return undefined;
  }
  using _reader = hibernation.activity.reader();
  const asleep = new AbortController();
  const stop = sandbox.listen((_, after) => {
    if (after.state === "paused") asleep.abort();
  });
  try {
    return await ask(signal === undefined ? asleep.signal : AbortSignal.any([asleep.signal, signal]));
  } catch (error) {
    if (asleep.signal.aborted && signal?.aborted !== true) return undefined;
    throw error;
  } finally {
    stop();
  }
}

function startOffsets(options: AttachOptions): { readonly 1: bigint; readonly 2: bigint } {
  return { 1: options.stdoutOffset ?? 0n, 2: options.stderrOffset ?? 0n };
}

/** The result of a wait, or undefined when it takes longer. */
async function within<T>(
  timeoutMs: number,
  signal: AbortSignal | undefined,
  wait: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    return await wait(signal === undefined ? timeout : AbortSignal.any([timeout, signal]));
  } catch (error) {
    if (timeout.aborted && signal?.aborted !== true) return undefined;
    throw error;
  }
}
