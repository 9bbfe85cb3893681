/**
 * Runs containers with crun, in the foreground: the crun process is the parent of the container's process, and its exit status is
 * that of the process, so nothing has to be polled and nothing is reaped by somebody else.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, watch, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { BelljarError } from "../src/base/errors.ts";
import { sandboxLimits } from "../src/base/limits.ts";
import { lastKernelLines } from "./kernel-log.ts";
import { readNow } from "./read-now.ts";
import type { ContainerRuntime, Exit, Launch, Launched } from "./runtime.ts";
import { GUEST_PATH } from "./tools.ts";

/** In case a file event is lost. */
const LOOK_AGAIN_MS = 100;
/** The program's own file and its line. */
const PASSED_FDS = 2;
const LINE_FD = 4;
/** Of a kernel's log, when nobody else says what went wrong. */
const KERNEL_LINES = 3;

export class Crun implements ContainerRuntime {
  readonly #stateDir: string;

  constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  async launch(launch: Launch): Promise<Launched> {
    const logFile = join(launch.dir, "log");
    const pidFile = join(launch.dir, "pid");
    const command = ["crun", `--root=${this.#stateDir}`, "--cgroup-manager=cgroupfs", `--log=${logFile}`];
    command.push("--log-format=json", "bundle" in launch.what ? "run" : "exec", `--pid-file=${pidFile}`);
    if (launch.program !== undefined) command.push(`--preserve-fds=${PASSED_FDS}`);
    if ("bundle" in launch.what) command.push("--no-new-keyring", `--bundle=${launch.what.bundle}`, launch.containerId);
    else command.push(`--process=${launch.what.processFile}`, launch.containerId);
    const child = withoutProtection(() =>
      launch.terminal ? spawnInTerminal(command, launch) : spawnPlain(command, launch),
    );
    const exited = exitOf(child);
    let isLate = false;
    const pid = await waitForPid(launch.dir, pidFile, exited, () => {
      isLate = true;
      child.kill("SIGKILL");
    });
    if (pid !== undefined) return { pid, exited, line: lineOf(child) };
    lineOf(child)?.destroy();
    if (isLate) {
      const waitedMs = sandboxLimits.launchTimeoutMs;
      throw new BelljarError("CONTAINER_START_FAILED", `crun has not started the process within ${waitedMs} ms`);
    }
    throw launchError(readNow(logFile), await exited);
  }
}

/**
 * The agent is the last process that the kernel may kill, and what it starts inherits that; crun sets a value of its own for a
 * container's first process, but not for further ones. Only the process itself can say it before it has children, so the
 * agent lays its protection down while it starts one: synchronously, so that nothing comes in between.
 */
function withoutProtection<T>(start: () => T): T {
  const own = readOomScore();
  if (own === undefined) return start();
  writeFileSync(OOM_SCORE, "0");
  try {
    return start();
  } finally {
    writeFileSync(OOM_SCORE, own);
  }
}

const OOM_SCORE = "/proc/self/oom_score_adj";

/** Undefined when there is no protection to lay down. */
function readOomScore(): string | undefined {
  const value = readFileSync(OOM_SCORE, "latin1").trim();
  return Number(value) < 0 ? value : undefined;
}

function spawnPlain(command: readonly string[], launch: Launch): ChildProcess {
  const [program = "", ...args] = command;
  const streams: (number | "ignore" | "pipe")[] = [launch.stdin, launch.stdout, launch.stderr];
  if (launch.program !== undefined) streams.push(launch.program, "pipe");
  return spawn(program, args, { stdio: streams, env: { PATH: GUEST_PATH } });
}

function lineOf(child: ChildProcess): Duplex | undefined {
  const line = child.stdio[LINE_FD];
  return line instanceof Duplex ? line : undefined;
}

/**
 * crun makes the container's own terminal and copies between it and its standard input and output, which must be a terminal too.
 * Node cannot make one, and cannot be handed one over a socket; `script` can. It runs its command by a shell: every word is
 * ours, a path or a checked name, and none needs quoting.
 */
function spawnInTerminal(command: readonly string[], launch: Launch): ChildProcess {
  const words = command.map((word) => {
    if (!/^[\w./=-]+$/.test(word)) throw new BelljarError("INVALID_ARGUMENT", "a name is not safe for a command line");
    return word;
  });
  const script = ["--quiet", "--return", "--flush", "--command", `exec ${words.join(" ")}`, "/dev/null"];
  return spawn("script", script, {
    stdio: [launch.stdin, launch.stdout, launch.stdout],
    env: { PATH: GUEST_PATH, SHELL: "/bin/sh", TERM: "xterm" },
  });
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.on("error", () => resolve({ exitCode: 127, signal: 0 }));
    child.on("exit", (code, name) => {
      if (name !== null) resolve({ exitCode: 128 + constants.signals[name], signal: constants.signals[name] });
      else resolve({ exitCode: code ?? 1, signal: signalOf(code ?? 1) });
    });
  });
}

/** crun has only an exit status, as a shell has it. */
function signalOf(exitCode: number): number {
  return exitCode > 128 && exitCode <= 128 + 64 ? exitCode - 128 : 0;
}

/** The pid that crun writes when the container is set up and its command was found; undefined when it ended before. */
async function waitForPid(
  dir: string,
  pidFile: string,
  exited: Promise<Exit>,
  kill: () => void,
): Promise<number | undefined> {
  const found = Promise.withResolvers<number | undefined>();
  const look = (): void => {
    try {
      const pid = pidIn(pidFile);
      if (pid !== undefined) found.resolve(pid);
    } catch {
      // It is looked at again; what is wrong for good is told at the end of crun, which has a deadline.
    }
  };
  const watcher = watch(dir, look);
  watcher.on("error", () => {});
  const again = setInterval(look, LOOK_AGAIN_MS);
  const late = setTimeout(kill, sandboxLimits.launchTimeoutMs);
  // A process that ends at once may have had its pid written all the same: look before it counts as not started.
  void exited.then(() => pidIn(pidFile)).then(found.resolve, found.reject);
  look();
  try {
    return await found.promise;
  } finally {
    watcher.close();
    clearInterval(again);
    clearTimeout(late);
  }
}

function pidIn(path: string): number | undefined {
  const text = readNow(path).trim();
  return /^[1-9][0-9]*$/.test(text) ? Number(text) : undefined;
}

function launchError(log: string, exit: Exit): BelljarError {
  const messages = log
    .split("\n")
    .map((line) => /"msg":"((?:[^"\\]|\\.)*)"/.exec(line)?.[1])
    .filter((message) => message !== undefined);
  const message = messages.at(-1) ?? silence(exit);
  return new BelljarError(launchReason(message), message);
}

/** The process of crun's that becomes the command was ended from outside before: by the kernel, which may say why. */
function silence({ exitCode }: Exit): string {
  const lines = lastKernelLines(KERNEL_LINES).map((line) => JSON.stringify(line));
  const said = lines.length === 0 ? "" : `; the last that the guest's kernel has said: ${lines.join(", ")}`;
  return `crun ended with status ${exitCode} and said nothing${said}`;
}

/** By the words of crun 1.8 and its successors for a command that cannot be executed. */
export function launchReason(
  message: string,
): "COMMAND_NOT_FOUND" | "COMMAND_NOT_EXECUTABLE" | "CONTAINER_START_FAILED" {
  if (/^executable file .* not found/.test(message)) return "COMMAND_NOT_FOUND";
  if (/^exec(:| container process).*No such file/.test(message)) return "COMMAND_NOT_FOUND";
  if (/^(open executable|exec container process|exec:|executable file)/.test(message)) return "COMMAND_NOT_EXECUTABLE";
  return "CONTAINER_START_FAILED";
}
