/**
 * Starts a daemon for one root, in a session of its own. Any number of programs may do so at once: the root's lock lets one
 * daemon live, the others end with a status that says so, and everybody talks to the one.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:fs";
import { mkdir, open, readFile, rename, stat } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { apiLimits, BelljarError, hasErrno, type Log } from "../../base/index.ts";
import {
  daemonLogPath,
  daemonProgram,
  daemonSocketPath,
  type KeptWaiting,
  ROOT_LOCKED_STATUS,
} from "../../daemon/index.ts";
import { acquireLock, type FileLock } from "../../store/index.ts";
import type { Paths } from "../paths.ts";

export interface Launcher {
  /**
   * Starts a daemon, unless one that this launcher started is alive or it is too early to try again.
   * @throws BelljarError `DAEMON_START_FAILED` when the last one ended for another reason than the root's lock
   */
  launch(): Promise<void>;
  /** There is a connection: from now on the end of a daemon that was started for it is no failure to start. */
  settle(): void;
}

export class DaemonLauncher implements Launcher {
  readonly #paths: Paths;
  readonly #log: Log;
  readonly #kept: KeptWaiting;
  #child: ChildProcess | undefined;
  #startedPid: number | undefined;
  #retryAtMs = 0;
  /** Of several clients that find no daemon, the one that has it starts one. */
  #lock: FileLock | undefined;

  /** @param kept by the daemon that is started */
  constructor(paths: Paths, log: Log, kept: KeptWaiting = {}) {
    this.#kept = kept;
    this.#paths = paths;
    this.#log = log;
  }

  async launch(): Promise<void> {
    const child = this.#child;
    if (child !== undefined) {
      if (child.exitCode === null && child.signalCode === null) return;
      this.#child = undefined;
      await this.#unlock();
      if (child.exitCode !== ROOT_LOCKED_STATUS) throw await this.#failure(child);
      this.#retryAtMs = performance.now() + apiLimits.restartIntervalMs;
    }
    if (performance.now() < this.#retryAtMs) return;
    if (!(await this.#tryLock())) {
      this.#retryAtMs = performance.now() + apiLimits.restartIntervalMs;
      return;
    }
    try {
      // Whoever had the lock before may have started one meanwhile.
      if (await isListening(daemonSocketPath(this.#paths.run))) await this.#unlock();
      else this.#child = await this.#spawn();
    } catch (error) {
      await this.#unlock();
      throw error;
    }
  }

  settle(): void {
    this.#child = undefined;
    void this.#unlock();
  }

  async #tryLock(): Promise<boolean> {
    const { root } = this.#paths;
    await mkdir(root, { recursive: true, mode: 0o700 });
    try {
      this.#lock = await acquireLock(join(root, "launch.lock"), {
        mode: "exclusive",
        timeoutMs: 0,
        what: "the launch",
      });
      return true;
    } catch (error) {
      if (BelljarError.from(error).reason === "LOCKED") return false;
      throw error;
    }
  }

  async #unlock(): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    await lock?.release();
  }

  /** Pid of the daemon that this launcher started last; whether it is the one that took the root, it says itself. */
  get startedPid(): number | undefined {
    return this.#startedPid;
  }

  async #spawn(): Promise<ChildProcess> {
    const { root, run, guest, templates, cache } = this.#paths;
    const logPath = daemonLogPath(root);
    await rotate(logPath);
    const file = await open(logPath, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600);
    try {
      const places = ["--root", root, "--run", run, "--guest", guest, "--templates", templates, "--cache", cache];
      const { poolSize = 0, spareCount = 0 } = this.#kept;
      const kept = ["--pool", String(poolSize), "--spares", String(spareCount)];
      const args = [...places, "--on-demand", ...kept, "--log-file", logPath];
      const child = spawn(process.execPath, [daemonProgram, ...args], {
        cwd: "/",
        detached: true,
        stdio: ["ignore", file.fd, file.fd],
      });
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", reject);
      });
      child.unref();
      this.#startedPid = child.pid;
      this.#log.info("started a daemon", { pid: child.pid });
      return child;
    } finally {
      await file.close();
    }
  }

  async #failure(child: ChildProcess): Promise<BelljarError> {
    const path = daemonLogPath(this.#paths.root);
    const text = await readFile(path, "utf8").catch(() => "");
    const said = text.slice(-apiLimits.logTailBytes).trim().split("\n").at(-1) ?? "";
    const status = String(child.exitCode ?? child.signalCode);
    return new BelljarError("DAEMON_START_FAILED", `the daemon ended with ${status} while it started: ${said}`, {
      facts: { log: path, status },
    });
  }
}

async function isListening(socketPath: string): Promise<boolean> {
  const socket = net.connect(socketPath);
  try {
    return await new Promise<boolean>((resolve) => {
      socket.setTimeout(apiLimits.connectTimeoutMs, () => resolve(false));
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
  } finally {
    socket.destroy();
  }
}

/** One older log is kept. */
async function rotate(path: string): Promise<void> {
  try {
    if ((await stat(path)).size > apiLimits.logMaxBytes) await rename(path, join(`${path}.old`));
  } catch (error) {
    // Another program may have been faster.
    if (!hasErrno(error, "ENOENT")) throw error;
  }
}
