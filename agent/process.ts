/**
 * One process of a container: its three streams, its end. The record stays until it is released or the container is removed, so
 * that exit status and output can be asked for at any time.
 */
import { closeSync, rmSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { linkLimits } from "../src/base/limits.ts";
import { launchReason } from "./crun.ts";
import { Input } from "./input.ts";
import { Output } from "./output.ts";
import { type PipeMaker, readPipe, writePipe } from "./pipes.ts";
import type { ContainerRuntime, Exit, Launch } from "./runtime.ts";

const SIGKILL = 9;

export interface ProcessEnd {
  readonly exitCode: number;
  readonly signal: number;
  readonly oomKilled: boolean;
  readonly exitedAtNs: bigint;
  /** Why the command could not be executed; "" when it was. */
  readonly launchError: string;
}

export interface ProcessDeps {
  readonly pipes: Pick<PipeMaker, "open">;
  readonly runtime: ContainerRuntime;
  /** Processes of the container that were killed for lack of memory so far. */
  readonly oomKills: () => Promise<number>;
}

export type ProcessOptions = Pick<Launch, "containerId" | "dir" | "what" | "terminal"> & { readonly stdin: boolean };

export class GuestProcess {
  readonly pid: number;
  readonly startedAtNs: bigint;
  readonly terminal: boolean;
  /** It was given an open standard input. */
  readonly stdin: boolean;
  readonly input: Input;
  readonly #outputs: ReadonlyMap<number, Output>;
  /** Settles, never rejects. */
  readonly ended: Promise<ProcessEnd>;
  #end: ProcessEnd | undefined;
  /** A signal whose default action the agent stands in for. */
  #endedBy: number | undefined;

  private constructor(
    pid: number,
    startedAtNs: bigint,
    options: ProcessOptions,
    input: Input,
    outputs: ReadonlyMap<number, Output>,
    ended: Promise<ProcessEnd>,
  ) {
    this.pid = pid;
    this.startedAtNs = startedAtNs;
    this.terminal = options.terminal;
    this.stdin = options.stdin;
    this.input = input;
    this.#outputs = outputs;
    this.ended = ended.then((end) => {
      const signal = end.signal === SIGKILL ? this.#endedBy : undefined;
      this.#end = signal === undefined ? end : { ...end, signal, exitCode: 128 + signal };
      return this.#end;
    });
  }

  /** @throws BelljarError what `ContainerRuntime.launch` throws; every descriptor is closed then. */
  static async start(deps: ProcessDeps, options: ProcessOptions): Promise<GuestProcess> {
    const childFds: number[] = [];
    const openOutput = async (): Promise<{ fd: number; output: Output }> => {
      const { childFd, ownFd } = await deps.pipes.open(false);
      childFds.push(childFd);
      const output: Output = new Output({ pause: () => source.pause(), resume: () => source.resume() });
      const source = readPipe(
        ownFd,
        (bytes) => output.push(bytes),
        () => output.end(),
      );
      return { fd: childFd, output };
    };
    let target: ReturnType<typeof writePipe> | undefined;
    try {
      const stdout = await openOutput();
      const stderr = options.terminal ? stdout : await openOutput();
      let stdin: number | "ignore" = "ignore";
      // A terminal without input stays open and silent: the end of its input would end a shell.
      if (options.stdin || options.terminal) {
        const { childFd, ownFd } = await deps.pipes.open(true);
        childFds.push(childFd);
        stdin = childFd;
        target = writePipe(ownFd, () => input.close());
      }
      const input: Input = new Input(options.stdin ? target : undefined);
      const oomKillsBefore = await deps.oomKills();
      const { pid, exited } = await deps.runtime.launch({ ...options, stdin, stdout: stdout.fd, stderr: stderr.fd });
      const ended = exited.then(async (exit): Promise<ProcessEnd> => {
        const exitedAtNs = nowNs();
        input.close();
        target?.destroy();
        // What the process wrote last is in the pipe by now, and is read in the next turn of the loop.
        await nextTurn();
        await nextTurn();
        const oomKilled = (await deps.oomKills().catch(() => 0)) > oomKillsBefore;
        removeAll(options.dir);
        return { ...exit, ...lateLaunchError(exit, stderr.output), oomKilled, exitedAtNs };
      });
      const outputs = new Map([[1, stdout.output]]);
      if (!options.terminal) outputs.set(2, stderr.output);
      return new GuestProcess(pid, nowNs(), options, input, outputs, ended);
    } catch (error) {
      target?.destroy();
      throw error;
    } finally {
      for (const fd of childFds) closeSync(fd);
    }
  }

  /** How it ended; undefined while it runs. */
  get end(): ProcessEnd | undefined {
    return this.#end;
  }

  /** @throws BelljarError `INVALID_ARGUMENT` */
  output(stream: number): Output {
    const output = this.#outputs.get(stream);
    if (output !== undefined) return output;
    throw new BelljarError("INVALID_ARGUMENT", `the process has no output stream ${stream}`);
  }

  /** Ends the process as the default action of this signal does, and lets its end say so. The first signal counts. */
  endBy(signal: number): void {
    this.#endedBy ??= signal;
    try {
      process.kill(this.pid, SIGKILL);
    } catch (error) {
      if (!hasErrno(error, "ESRCH")) throw error;
    }
  }

  /** Waits until it has ended, at most `waitMs`; undefined when it still runs then. */
  async waitForEnd(waitMs: number, signal: AbortSignal): Promise<ProcessEnd | undefined> {
    if (this.#end !== undefined || waitMs === 0) return this.#end;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => resolve(undefined), Math.min(waitMs, linkLimits.longPollMs));
    const onAbort = (): void => resolve(undefined);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([this.ended, promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }
}

/** Of memory, and small. */
function removeAll(dir: string): void {
  try {
    rmSync(dir, { recursive: true, force: true });
  } catch {
    // The container's own directory goes with the container, and this with it.
  }
}

export function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}

/**
 * A file that crun found and the kernel then refused (another architecture, a missing interpreter) is only reported on the
 * process's own standard error, as the only thing that ever stands there. A program that imitates it deceives nobody but the one
 * who waits for its exit status.
 */
function lateLaunchError(exit: Exit, errors: Output): { exitCode: number; launchError: string } {
  if (exit.exitCode === 1) {
    const said = errors.head.toString();
    // As `crun run` says it, and `crun exec`.
    const message =
      /^\{"msg":"(exec container process (?:[^"\\]|\\.)*)"/.exec(said)?.[1] ?? /^exec: .+(?=\n$)/.exec(said)?.[0];
    if (message !== undefined) {
      return { exitCode: launchReason(message) === "COMMAND_NOT_FOUND" ? 127 : 126, launchError: message };
    }
  }
  return { exitCode: exit.exitCode, launchError: "" };
}
