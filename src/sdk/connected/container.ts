/** A container behind the daemon. */
import { collectResult, deleteIfThere, type OutputEnds, outputUntil } from "../../base/index.ts";
import {
  ContainerFiles,
  type ContainerLimits,
  type Files,
  type ProcessStatus,
  type TerminalSize,
} from "../../container/index.ts";
import {
  fromContainerInfo,
  fromContainerStats,
  fromProcessInfo,
  fromSandboxInfo,
  fromStatus,
  incomplete,
  toLimits,
  toProcessSpec,
} from "../../daemon/index.ts";
import type {
  AttachOptions,
  CallOptions,
  ContainerHandle,
  ContainerInfo,
  ContainerStats,
  ExecOptions,
  ExecResult,
  KillOptions,
  LogOptions,
  LogRecord,
  ProcessHandle,
  ProcessInfo,
  StopOptions,
} from "../../runtime/index.ts";
import type { DaemonLink, MakeCall } from "./daemon-link.ts";
import { connectedFileCalls } from "./files.ts";
import { readLogs } from "./logs.ts";
import { connectProcess } from "./process.ts";

export class ConnectedContainer implements ContainerHandle {
  readonly id: string;
  readonly sandboxId: string;
  readonly name: string;
  readonly files: Files;
  readonly #link: DaemonLink;
  readonly #ref: { readonly sandbox: string; readonly container: string };
  readonly #isOwned: boolean;

  /** @param isOwned this handle has made it */
  constructor(
    link: DaemonLink,
    sandboxId: string,
    info: { readonly id: string; readonly name: string },
    isOwned = false,
  ) {
    this.#isOwned = isOwned;
    this.#link = link;
    this.id = info.id;
    this.sandboxId = sandboxId;
    this.name = info.name;
    this.#ref = { sandbox: sandboxId, container: info.id };
    this.files = new ContainerFiles(connectedFileCalls(link, this.#ref));
  }

  async info(): Promise<ContainerInfo> {
    const answer = await this.#link.call(
      { what: `${this.#title} was asked for`, repeatable: true },
      (clients, options) => clients.container.getContainer({ container: this.#ref }, options),
    );
    return fromContainerInfo(answer.container);
  }

  async start(options: CallOptions & { readonly terminalSize?: TerminalSize | undefined } = {}): Promise<void> {
    const { signal, terminalSize } = options;
    const size = terminalSize === undefined ? {} : { terminalSize: { ...terminalSize } };
    await this.#change("was being started", signal, (clients, call) =>
      clients.container.startContainer({ container: this.#ref, ...size }, call),
    );
  }

  async stop({ signal, timeoutMs, force = false }: StopOptions = {}): Promise<void> {
    const timeout = timeoutMs === undefined ? {} : { timeoutMs };
    // Stopping what is stopped is success, so it can be asked for again.
    await this.#link.call(
      { what: `${this.#title} was being stopped`, repeatable: true, signal, timeoutMs: 0 },
      (clients, call) => clients.container.stopContainer({ container: this.#ref, ...timeout, force }, call),
    );
  }

  async kill({ signal, number, all = false }: KillOptions = {}): Promise<void> {
    const which = number === undefined ? {} : { number };
    await this.#change("was sent a signal", signal, (clients, call) =>
      clients.container.killContainer({ container: this.#ref, ...which, all }, call),
    );
  }

  async pause(): Promise<void> {
    await this.#change("was being paused", undefined, (clients, call) =>
      clients.container.pauseContainer({ container: this.#ref }, call),
    );
  }

  async resume(): Promise<void> {
    await this.#change("was being resumed", undefined, (clients, call) =>
      clients.container.resumeContainer({ container: this.#ref }, call),
    );
  }

  async delete({ signal, force = false }: { readonly force?: boolean | undefined } & CallOptions = {}): Promise<void> {
    await this.#change("was being deleted", signal, (clients, call) =>
      clients.container.deleteContainer({ container: this.#ref, force }, call),
    );
  }

  async update(limits: ContainerLimits): Promise<void> {
    await this.#link.call({ what: `${this.#title} was being updated`, repeatable: true }, (clients, call) =>
      clients.container.updateContainer({ container: this.#ref, limits: toLimits(limits) }, call),
    );
  }

  async growStorage(sizeBytes: number): Promise<void> {
    await this.#link.call(
      { what: `${this.#title} was being given room`, repeatable: true, timeoutMs: 0 },
      (clients, call) => clients.container.growStorage({ container: this.#ref, sizeBytes }, call),
    );
  }

  async stats(): Promise<ContainerStats> {
    const answer = await this.#link.call({ what: `${this.#title} was measured`, repeatable: true }, (clients, call) =>
      clients.container.getContainerStats({ container: this.#ref }, call),
    );
    return fromContainerStats(answer.stats);
  }

  async wait({ signal }: CallOptions = {}): Promise<ProcessStatus> {
    const answer = await this.#link.call(
      { what: `the end of ${this.#title} was waited for`, repeatable: true, signal, timeoutMs: 0 },
      (clients, call) => clients.container.waitContainer({ container: this.#ref }, call),
    );
    const status = fromStatus(answer.status);
    if (status === undefined) throw incomplete("status");
    return status;
  }

  async attach(options: AttachOptions = {}): Promise<ProcessHandle> {
    const answer = await this.#link.call(
      { what: `${this.#title} was attached to`, repeatable: true },
      (clients, call) => clients.container.attachContainer({ container: this.#ref }, call),
    );
    const since = options.sinceRestore === true ? await this.#outputUntilRestore() : {};
    return connectProcess(this.#link, this.sandboxId, answer.process, { ...since, ...options });
  }

  async #outputUntilRestore(): Promise<OutputEnds> {
    const { sandbox } = await this.#link.call(
      { what: `${this.#title} was asked for`, repeatable: true },
      (clients, call) => clients.sandbox.getSandbox({ sandbox: this.sandboxId }, call),
    );
    return await outputUntil(this.logs(), fromSandboxInfo(sandbox).createdAtMs);
  }

  logs(options: LogOptions = {}): AsyncIterable<LogRecord> {
    return readLogs(this.#link, this.#ref, options);
  }

  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await collectResult(await this.spawn(command, options), options);
  }

  async spawn(command: readonly string[], options: ExecOptions = {}): Promise<ProcessHandle> {
    const { terminalSize, stdin = false, signal, endOnAbort = true, cwd } = options;
    const size = terminalSize === undefined ? {} : { terminalSize: { ...terminalSize } };
    const spec = toProcessSpec({ ...options, command, workingDir: cwd });
    const answer = await this.#change("was given a process", signal, (clients, call) =>
      clients.container.spawnProcess({ container: this.#ref, spec, stdin, ...size }, call),
    );
    const handle = connectProcess(
      this.#link,
      this.sandboxId,
      answer.process,
      {},
      {
        endSignal: endOnAbort ? signal : undefined,
      },
    );
    await handle.checkWanted();
    return handle;
  }

  async process(processId: string, options: AttachOptions = {}): Promise<ProcessHandle> {
    const address = { ...this.#ref, process: processId };
    const answer = await this.#link.call(
      { what: `a process of ${this.#title} was asked for`, repeatable: true },
      (clients, call) => clients.process.getProcess({ process: address }, call),
    );
    return connectProcess(this.#link, this.sandboxId, answer.process, options);
  }

  async processes(): Promise<readonly ProcessInfo[]> {
    const answer = await this.#link.call(
      { what: `the processes of ${this.#title} were listed`, repeatable: true },
      (clients, call) => clients.container.listProcesses({ container: this.#ref }, call),
    );
    return answer.processes.map(fromProcessInfo);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOwned) await deleteIfThere(this);
  }

  get #title(): string {
    return `container ${this.id}`;
  }

  /** A call that must not be made twice, and takes as long as the runtime lets it. */
  #change<T>(what: string, signal: AbortSignal | undefined, make: MakeCall<T>): Promise<T> {
    return this.#link.call({ what: `${this.#title} ${what}`, repeatable: false, signal, timeoutMs: 0 }, make);
  }
}
