/** Processes of one container: started, found again, read. */
import type { AgentCaller } from "../agent-client/index.ts";
import { BelljarError, checkContainerOperation, type LifecycleState, linkLimits, streamLimits } from "../base/index.ts";
import {
  type Container,
  type ContainerState,
  checkSignal,
  type ExecRecord,
  type ProcessStatus,
  resolveEnvironment,
  SIGKILL,
  stateOf,
  toStatus,
} from "../container/index.ts";
import { abortable } from "../sandbox/index.ts";
import { endedError } from "./info.ts";
import type {
  AttachOptions,
  CallOptions,
  ExecOptions,
  ExecResult,
  OutputPiece,
  OutputRequest,
  ProcessHandle,
} from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";
import { RuntimeProcess } from "./process-handle.ts";

export class Processes {
  readonly #managed: ManagedSandbox;
  readonly #container: Container;

  constructor(managed: ManagedSandbox, container: Container) {
    this.#managed = managed;
    this.#container = container;
  }

  async spawn(command: readonly string[], options: ExecOptions = {}): Promise<ProcessHandle> {
    const { signal, stdin, terminalSize, ...config } = options;
    const env = resolveEnvironment(config);
    const record = await this.#container.exec({ ...config, env, command }, { signal, stdin, terminalSize });
    return this.#handle(record, {});
  }

  /** Runs a command to its end and collects what it writes, as UTF-8. An aborted one is killed. */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const child = await this.spawn(command, options);
    try {
      const work = Promise.all([child.status, collect(child.stdout), collect(child.stderr)]);
      const [status, stdout, stderr] = await abortable(work, options.signal);
      return { exitCode: status.exitCode, stdout, stderr };
    } catch (error) {
      await child.signal(SIGKILL).catch(() => {});
      throw error;
    } finally {
      // What it wrote is here, or not wanted. It is ended, or will be; the guest forgets it with its container at the latest.
      await child.release().catch(() => {});
    }
  }

  /** Its first process. */
  attach(options: AttachOptions = {}): ProcessHandle {
    const { state } = this.#container;
    if (state.starts === 0) throw endedError(`container ${state.id}`, state.end);
    return this.#handle(
      {
        id: "",
        pid: state.pid ?? 0,
        startedAtMs: state.startedAtMs ?? 0,
        tty: state.config.tty === true,
        stdin: state.config.stdin === true,
      },
      options,
    );
  }

  /** @throws BelljarError `PROCESS_NOT_FOUND` */
  find(processId: string, options: AttachOptions = {}): ProcessHandle {
    if (processId === "") return this.attach(options);
    const record = this.#container.state.processes.find((each) => each.id === processId);
    if (record !== undefined) return this.#handle(record, options);
    const shown = JSON.stringify(processId.slice(0, 64));
    throw new BelljarError("PROCESS_NOT_FOUND", `container ${this.#container.id} has no process ${shown}`);
  }

  /** How its first process ended; waits until it has. */
  async wait(signal: AbortSignal | undefined): Promise<ProcessStatus> {
    const { sandbox } = this.#managed;
    return await sandbox.until(() => statusOf(stateOf(sandbox, this.#container.id)), signal);
  }

  #handle(record: ExecRecord, options: AttachOptions): ProcessHandle {
    const { sandbox } = this.#managed;
    const container = this.#container;
    const { id } = record;
    const address = { containerId: container.id, processId: id };
    const agent: AgentCaller = {
      call: (method, request, callOptions) => {
        const operation =
          method === "writeInput" ? "writeInput" : method === "resizeTerminal" ? "resize" : "readOutput";
        checkContainerOperation(operation, container.state.state, sandbox.state.state, container.id);
        return sandbox.call(method, request, callOptions);
      },
    };
    const poll = async (waitMs: number, { signal }: CallOptions): Promise<ProcessStatus | undefined> => {
      if (id === "") return await within(waitMs, signal, (either) => this.wait(either));
      await whileNotPaused(
        () => sandbox.state.state,
        (found) => sandbox.until(found, signal),
      );
      const answer = await sandbox.call(
        "waitProcess",
        { ...address, waitMs: Math.min(waitMs, linkLimits.longPollMs) },
        { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal },
      );
      return answer.ended ? toStatus(answer) : undefined;
    };
    const readOutput = async (request: OutputRequest, { signal }: CallOptions): Promise<OutputPiece> => {
      const answer = await sandbox.call(
        "readOutput",
        {
          ...address,
          stream: request.stream,
          offset: request.offset,
          maxBytes: Math.min(request.maxBytes, streamLimits.chunkMaxBytes),
          waitMs: Math.min(request.waitMs, linkLimits.longPollMs),
          detach: request.detach === true,
        },
        { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal },
      );
      if (answer.offset < request.offset || answer.data.length > streamLimits.chunkMaxBytes) {
        throw new BelljarError("AGENT_PROTOCOL", "the agent answered with output that was not asked for");
      }
      return { offset: answer.offset, data: answer.data, end: answer.end };
    };
    return new RuntimeProcess({
      containerId: container.id,
      ...record,
      offsets: { 1: options.stdoutOffset ?? 0n, 2: options.stderrOffset ?? 0n },
      agent,
      readOutput,
      waitForEnd: poll,
      signal: (number) => this.#signal(id, number),
      release: () => (id === "" ? Promise.resolve() : container.release(id)),
    });
  }

  async #signal(processId: string, number: number): Promise<void> {
    checkSignal(number);
    const { sandbox } = this.#managed;
    const { state, id } = this.#container.state;
    if (state === "stopped") return;
    checkContainerOperation("signal", state, sandbox.state.state, id);
    try {
      await sandbox.call("signalProcess", { containerId: id, processId, signal: number });
    } catch (error) {
      const { reason } = BelljarError.from(error);
      if (reason !== "PROCESS_NOT_FOUND" && reason !== "CONTAINER_NOT_FOUND") throw error;
    }
  }
}

/** @throws BelljarError when it will never end, because it never ran */
function statusOf(state: ContainerState): ProcessStatus | undefined {
  if (state.status !== undefined) return state.status;
  if (state.state === "stopped" && state.pending === undefined) throw endedError(`container ${state.id}`, state.end);
  return undefined;
}

/** In a paused sandbox nothing answers, and nothing ends. */
async function whileNotPaused(
  state: () => LifecycleState,
  until: (found: () => true | undefined) => Promise<true>,
): Promise<void> {
  if (state() === "paused") await until(() => (state() === "paused" ? undefined : true));
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

async function collect(stream: ReadableStream<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of stream) {
    total += chunk.length;
    if (total > streamLimits.collectMaxBytes) {
      throw new BelljarError("OUTPUT_TOO_LARGE", "the command wrote more than is kept in memory", {
        facts: { maxBytes: streamLimits.collectMaxBytes },
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
