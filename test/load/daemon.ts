/** A daemon that is killed again and again, and started again at once. */
import { type ChildProcess, spawn } from "node:child_process";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { type Paths, Runtime } from "../../src/sdk/index.ts";

const PROGRAM = join(import.meta.dirname, "../../src/daemon/main.ts");

export class KilledDaemon {
  readonly #paths: Paths;
  readonly #logPath: string;
  #child: ChildProcess | undefined;
  kills = 0;
  /** The 99th percentile of the event loop's delay, one for each life that could be asked. */
  readonly delaysMs: number[] = [];

  constructor(paths: Paths, logPath: string) {
    this.#paths = paths;
    this.#logPath = logPath;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  async start(): Promise<void> {
    const { root, run, guest, templates, cache } = this.#paths;
    await using log = await open(this.#logPath, "a");
    const places = ["--root", root, "--run", run, "--guest", guest, "--templates", templates, "--cache", cache];
    this.#child = spawn(process.execPath, [PROGRAM, ...places, "--log-level", "info"], {
      stdio: ["ignore", "ignore", log.fd],
    });
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
    this.kills += 1;
  }

  /** Asks it first how late its timers were. */
  async killAndStart(): Promise<void> {
    const delayMs = await this.#delayMs().catch(() => undefined);
    if (delayMs !== undefined) this.delaysMs.push(delayMs);
    await this.kill();
    await this.start();
  }

  async #delayMs(): Promise<number | undefined> {
    await using runtime = await Runtime.connect({ paths: this.#paths, startDaemon: false });
    const text = await runtime.metrics();
    const found = /^belljar_daemon_event_loop_delay_seconds\{quantile="0.99"\} (\S+)$/m.exec(text)?.[1];
    return found === undefined ? undefined : Number(found) * 1000;
  }
}
