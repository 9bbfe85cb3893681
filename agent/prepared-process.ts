/**
 * A process that waits in a container for its command (guest-image/programs/prepared.c): crun has set it up as it sets up any further process
 * of the container, which is most of what a command's start takes. Whoever takes it only sends it the command.
 *
 * It stands in for pipes and runtime of one `GuestProcess`: the pipes are those that it was started with, and its launch is the command's.
 */
import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { sandboxLimits } from "../src/base/limits.ts";
import type { PipeMaker } from "./pipes.ts";
import type { ContainerRuntime, Launch, Launched } from "./runtime.ts";
import { SIGKILL, sendSignal } from "./signals.ts";
import type { JsonObject } from "./spec.ts";

/** How the program finds itself in a container, by the descriptor that it is given; and what `ps` shows of it. */
const COMMAND = ["/proc/self/fd/3", "belljar: waits for a command"];
const YES = "+".charCodeAt(0);

type OpenPipe = Awaited<ReturnType<PipeMaker["open"]>>;

/** What a `GuestProcess` is started with. */
export interface StartDeps {
  readonly pipes: Pick<PipeMaker, "open">;
  readonly runtime: ContainerRuntime;
}

export interface PreparedDeps extends StartDeps {
  /** The program's path in the guest. */
  readonly preparedProgram?: string | undefined;
}

export interface PreparedOptions {
  readonly containerId: string;
  /** Of its own; needed until it has started. */
  readonly dir: string;
  /** Complete; its command is the one that is waited for. */
  readonly process: JsonObject;
}

export class PreparedProcess {
  /** What it was set up with, without its command. */
  readonly #setUp: string;
  readonly #line: Duplex;
  readonly #launched: Launched;
  readonly #outputs: OpenPipe[];
  #input: OpenPipe | undefined;
  #isOver = false;
  #hasBecome = false;

  private constructor(setUp: string, launched: Launched, line: Duplex, input: OpenPipe, outputs: OpenPipe[]) {
    this.#setUp = setUp;
    this.#launched = launched;
    this.#line = line;
    this.#input = input;
    this.#outputs = outputs;
    line.on("error", () => {});
    void launched.exited.then(() => this.#close());
  }

  /** @throws BelljarError what `ContainerRuntime.launch` throws; nothing is left then */
  static async start(deps: PreparedDeps, { containerId, dir, process }: PreparedOptions): Promise<PreparedProcess> {
    const { pipes, runtime, preparedProgram = "/bin/belljar-prepared" } = deps;
    const opened: OpenPipe[] = [];
    const open = async (childReads: boolean): Promise<OpenPipe> => {
      const pipe = await pipes.open(childReads);
      opened.push(pipe);
      return pipe;
    };
    const program = openSync(preparedProgram, "r");
    try {
      const waiting = { ...process, args: COMMAND, cwd: "/", env: [], terminal: false };
      const [input, stdout, stderr] = [await open(true), await open(false), await open(false)];
      const launched = await runtime.launch({
        containerId,
        dir,
        what: { processFile: writeProcess(dir, waiting) },
        stdin: input.childFd,
        stdout: stdout.childFd,
        stderr: stderr.childFd,
        terminal: false,
        program,
      });
      if (launched.line === undefined) throw new BelljarError("AGENT_FAILED", "a prepared process has no line");
      return new PreparedProcess(setUpOf(process), launched, launched.line, input, [stdout, stderr]);
    } catch (error) {
      for (const pipe of opened) closeBoth(pipe);
      throw error;
    } finally {
      closeSync(program);
    }
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** It has found the command, and executes it: that must not be started again. */
  get hasBecome(): boolean {
    return this.#hasBecome;
  }

  /** Whether this process would have been set up in the same way, and its command fits the line. */
  fits(process: JsonObject): boolean {
    if (this.#isOver || process["terminal"] === true || setUpOf(process) !== this.#setUp) return false;
    // What is named relatively crun finds in a way of its own.
    if (Array.isArray(process["args"]) && /^\.|^[^/]+\//.test(String(process["args"][0]))) return false;
    return encodeCommand(process, true) !== undefined;
  }

  /** For the one process that it becomes. @throws BelljarError `CONTAINER_START_FAILED` by `launch` when it cannot be that */
  as(process: JsonObject): StartDeps {
    return {
      pipes: {
        open: async (childReads) => {
          const pipe = childReads ? this.#input : this.#outputs.shift();
          if (pipe === undefined) throw new BelljarError("AGENT_FAILED", "a prepared process has no such pipe");
          if (childReads) this.#input = undefined;
          return pipe;
        },
      },
      runtime: { launch: async (launch) => await this.#become(process, launch) },
    };
  }

  /** Resolves when it is gone, or will be; a command that it has become is no more ended by this. */
  async end(): Promise<void> {
    if (this.#isOver) return;
    sendSignal(this.#launched.pid, SIGKILL);
    await Promise.race([this.#launched.exited, sleep(sandboxLimits.stopGraceMs, undefined, { ref: false })]);
  }

  async #become(process: JsonObject, { stdin }: Launch): Promise<Launched> {
    const message = encodeCommand(process, stdin !== "ignore");
    const found = message !== undefined && !this.#isOver && (await this.#send(message));
    if (!found) {
      await this.end();
      // It may have answered too late.
      throw new BelljarError("CONTAINER_START_FAILED", "the prepared process cannot become this command");
    }
    this.#close();
    return this.#launched;
  }

  async #send(message: Buffer): Promise<boolean> {
    if (this.#line.destroyed) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const late = setTimeout(() => resolve(false), sandboxLimits.preparedAnswerTimeoutMs);
    this.#line.once("data", (bytes: Buffer) => {
      this.#hasBecome = bytes[0] === YES;
      resolve(this.#hasBecome);
    });
    this.#line.once("close", () => resolve(false));
    this.#line.write(message);
    try {
      return await promise;
    } finally {
      clearTimeout(late);
    }
  }

  /** What nobody took is closed. */
  #close(): void {
    this.#isOver = true;
    this.#line.destroy();
    if (this.#input !== undefined) closeBoth(this.#input);
    for (const pipe of this.#outputs) closeBoth(pipe);
    this.#input = undefined;
    this.#outputs.length = 0;
  }
}

/** Answers the file's path. */
export function writeProcess(dir: string, process: JsonObject): string {
  const path = join(dir, "process.json");
  writeFileSync(path, JSON.stringify(process));
  return path;
}

function closeBoth({ childFd, ownFd }: OpenPipe): void {
  closeSync(childFd);
  closeSync(ownFd);
}

/** All that crun does for a process before it executes its command. */
function setUpOf({ args: _args, env: _env, cwd: _cwd, terminal: _terminal, ...rest }: JsonObject): string {
  return JSON.stringify(Object.entries(rest).sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** Undefined when it does not fit, or is not plain. */
export function encodeCommand({ args, env, cwd }: JsonObject, hasInput: boolean): Buffer | undefined {
  if (!isStrings(args) || !isStrings(env) || typeof cwd !== "string" || args.length === 0) return undefined;
  const strings = [cwd, ...args, ...env];
  if (strings.length > sandboxLimits.preparedStringsMax || strings.some((text) => text.includes("\0")))
    return undefined;
  const text = Buffer.from(strings.map((each) => `${each}\0`).join(""));
  if (text.length > sandboxLimits.preparedMessageMaxBytes) return undefined;
  const head = Buffer.alloc(12);
  head.writeUInt32LE(8 + text.length, 0);
  head.writeUInt32LE(args.length, 4);
  head.writeUInt32LE(hasInput ? 1 : 0, 8);
  return Buffer.concat([head, text]);
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
}
