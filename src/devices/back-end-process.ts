/**
 * A program on the host that is the other end of a vhost-user device. It runs in a session of its own, so that it outlives us as
 * the VM does; the saved state names it by pid and start time, and its command line has its socket's path, so that one that was
 * started and not written down is found all the same.
 */
import { spawn } from "node:child_process";
import { open, readdir, readFile, rm, stat } from "node:fs/promises";
import { basename, join, sep } from "node:path";
import {
  BelljarError,
  deviceLimits,
  goWithGuests,
  hasErrno,
  identifyProcess,
  isAlive,
  messageChain,
  type ProcessIdentity,
  publishStep,
  signalProcess,
  throwIfAborted,
  withDeadline,
} from "../base/index.ts";

/** Where Debian has them. */
export const VIRTIOFSD = "/usr/lib/qemu/virtiofsd";
export const STORAGE_DAEMON = "qemu-storage-daemon";
const BACK_END_PROGRAMS = [VIRTIOFSD, STORAGE_DAEMON];

/**
 * Where virtiofsd writes its pid, in a file named by its socket's path, and leaves it. It locks that file: one that no server has
 * any more keeps nobody from starting.
 */
const PID_FILES_DIR = "/run/virtiofsd";

/** Flags of a socket that accepts connections, as the kernel lists them. */
const LISTENING = "00010000";

export interface BackEndCommand {
  /** What it is, for an error and for a step: `virtiofsd`. */
  readonly what: string;
  readonly program: string;
  /** One of them contains `socketPath`. */
  readonly args: readonly string[];
  readonly socketPath: string;
  /** Its output; removed with it. */
  readonly logPath: string;
}

/**
 * Starts it, and waits until it listens. On any error nothing of it is left.
 * @throws BelljarError `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED` with its last words, `DEADLINE_EXCEEDED`, `CANCELLED`
 */
export async function startBackEnd(command: BackEndCommand, signal?: AbortSignal): Promise<ProcessIdentity> {
  throwIfAborted(signal);
  await rm(command.socketPath, { force: true });
  const { identity, ended } = await publishStep("child", command.what, () => spawnDetached(command));
  try {
    await withDeadline(
      { timeoutMs: deviceLimits.backEndStartTimeoutMs, what: `the start of ${command.what}`, signal },
      async (stop) => {
        while (!stop.aborted && !(await isListening(command.socketPath))) {
          const how = await Promise.race([ended, pause()]);
          if (how === undefined) continue;
          throw await lastWords(command, how);
        }
      },
    );
    return identity;
  } catch (error) {
    await endBackEnd(identity, command);
    throw error;
  }
}

/** Ends it, whoever started it, and removes its socket, log and pid file; one that is gone is success. */
export async function endBackEnd(
  identity: ProcessIdentity,
  { what, socketPath, logPath }: Pick<BackEndCommand, "what" | "socketPath" | "logPath">,
): Promise<void> {
  await publishStep("child", `end ${what}`, async () => {
    await signalProcess(identity, "SIGTERM");
    if (!(await goneWithin(identity, deviceLimits.backEndEndTimeoutMs))) {
      await signalProcess(identity, "SIGKILL");
      if (!(await goneWithin(identity, deviceLimits.backEndEndTimeoutMs))) {
        throw new BelljarError("INTERNAL", `${what}, process ${identity.pid}, is still there after SIGKILL`);
      }
    }
    for (const path of [socketPath, logPath, pidFileOf(socketPath)]) await rm(path, { force: true });
  });
}

export interface FoundBackEnd {
  readonly identity: ProcessIdentity;
  readonly program: string;
  readonly socketPath: string;
}

/** Processes of this host that run one of these programs for a socket below `runDir`. */
export async function findBackEnds(
  runDir: string,
  programs: readonly string[] = BACK_END_PROGRAMS,
): Promise<FoundBackEnd[]> {
  const prefix = runDir.endsWith(sep) ? runDir : runDir + sep;
  const found: FoundBackEnd[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const words = (await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "")).split("\0");
    const word = words.find((each) => each.includes(`=${prefix}`));
    const program = programs.find((each) => words.includes(each));
    if (word === undefined || program === undefined) continue;
    const identity = await identifyProcess(Number(name));
    // Other options of the same word follow a comma.
    const socketPath = word.slice(word.indexOf(`=${prefix}`) + 1).replace(/,.*/s, "");
    if (identity !== undefined) found.push({ identity, program, socketPath });
  }
  return found;
}

/**
 * Ends every back end with a socket below this directory, and removes what those have left that ended by themselves; answers how
 * many there were.
 */
export async function endBackEndsOf(runDir: string): Promise<number> {
  const found = await findBackEnds(runDir);
  for (const { identity, program, socketPath } of found) {
    await endBackEnd(identity, { what: basename(program), socketPath, logPath: logPathOf(socketPath) });
  }
  const prefix = basename(pidFileOf(`${runDir}${sep}`)).slice(0, -".pid".length);
  for (const name of await readdir(PID_FILES_DIR).catch(() => [])) {
    // The names of two paths may be the same: `/run/a/b` and `/run/a.b`.
    if (name.startsWith(prefix) && !(await isServing(join(PID_FILES_DIR, name)))) {
      await rm(join(PID_FILES_DIR, name), { force: true });
    }
  }
  return found.length;
}

/** Where virtiofsd says its pid; nothing to find there for another program. */
export function pidFileOf(socketPath: string): string {
  return join(PID_FILES_DIR, `${socketPath.replaceAll("/", ".")}.pid`);
}

/** Whether the process that a pid file names is a virtiofsd; the number may be another program's by now. */
async function isServing(pidFile: string): Promise<boolean> {
  const pid = Number.parseInt(await readFile(pidFile, "utf8").catch(() => ""), 10);
  const commandLine = Number.isInteger(pid) ? await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "") : "";
  return commandLine.split("\0").includes(VIRTIOFSD);
}

export function logPathOf(socketPath: string): string {
  return `${socketPath}.log`;
}

async function spawnDetached(
  command: BackEndCommand,
): Promise<{ readonly identity: ProcessIdentity; readonly ended: Promise<string> }> {
  const log = await open(command.logPath, "w", 0o600);
  try {
    const child = spawn(command.program, command.args, {
      detached: true,
      cwd: "/",
      stdio: ["ignore", log.fd, log.fd],
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
    });
    goWithGuests(child.pid);
    const ended = new Promise<string>((resolve) => {
      child.on("exit", (code, signal) =>
        resolve(code === null ? `was ended by ${signal}` : `ended with status ${code}`),
      );
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    child.unref();
    const identity = child.pid === undefined ? undefined : await identifyProcess(child.pid);
    if (identity === undefined) throw await lastWords(command, await ended);
    return { identity, ended };
  } catch (error) {
    await rm(command.logPath, { force: true });
    if (!hasErrno(error, "ENOENT")) throw error;
    throw new BelljarError("HOST_TOOL_MISSING", `the program ${command.program} is not installed`, {
      facts: { tool: command.program },
      cause: messageChain(error).join(": "),
    });
  } finally {
    await log.close();
  }
}

/** Why it ended, as far as it said so. */
async function lastWords({ what, logPath }: BackEndCommand, how: string): Promise<BelljarError> {
  const words = (await readFile(logPath, "utf8").catch(() => "")).trim().split("\n").slice(-3);
  return new BelljarError("HOST_TOOL_FAILED", `${what} ${how}: ${words.join("; ").slice(-1_000)}`);
}

/** A socket is there a moment before anybody listens. To connect would tell, but these programs take one connection, and end with it. */
async function isListening(path: string): Promise<boolean> {
  if ((await stat(path).catch(() => undefined))?.isSocket() !== true) return false;
  const lines = (await readFile("/proc/net/unix", "utf8")).split("\n");
  return lines.some((line) => line.endsWith(` ${path}`) && line.split(" ")[3] === LISTENING);
}

async function goneWithin(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const endMs = performance.now() + timeoutMs;
  while (await isAlive(identity)) {
    if (performance.now() > endMs) return false;
    await pause();
  }
  return true;
}

async function pause(): Promise<undefined> {
  await new Promise((resolve) => setTimeout(resolve, deviceLimits.backEndPollMs));
}
