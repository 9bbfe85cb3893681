/**
 * Runs `bin/belljar` as a user does, with a root and run directory of the test's own; the guest image is shared. At the end of
 * the test its sandboxes are deleted and its daemon is stopped.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestScope } from "./scope.ts";

const BINARY = join(import.meta.dirname, "../../bin/belljar");
/** A command that has not ended by then is killed and the test fails. */
const TIMEOUT_MS = 120_000;

export interface CliOptions {
  readonly input?: Uint8Array | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  readonly cwd?: string;
  /** Runs it by this command, such as one that enters a namespace; the daemon that it starts is there too. */
  readonly within?: readonly string[];
}

export interface CliResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** For programs that start the command line themselves; what they leave in the root is cleaned up too. */
export function cliEnvironment(t: TestScope): NodeJS.ProcessEnv {
  cleanUpRoot(t, {});
  // VMs that wait would take the CPUs of those that are tested.
  const places = { BELLJAR_ROOT: join(t.dir, "root"), BELLJAR_RUN: join(t.dir, "run") };
  return { BELLJAR_POOL: "0", BELLJAR_SPARES: "0", ...process.env, ...places };
}

export function runCli(t: TestScope, args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return startCli(t, args, options).done;
}

/** Roots of each test that have a clean-up already. */
const cleaned = new WeakMap<TestScope, Set<string>>();

/** Registered before the first command of a root, so that it runs after the last one has ended. */
function cleanUpRoot(t: TestScope, options: CliOptions): void {
  const root = options.env?.["BELLJAR_ROOT"] ?? join(t.dir, "root");
  const known = cleaned.get(t) ?? new Set();
  cleaned.set(t, known);
  if (known.has(root)) return;
  known.add(root);
  t.after(async () => {
    const { BELLJAR_GUEST, BELLJAR_RUN } = options.env ?? {};
    const places = Object.entries({ BELLJAR_GUEST, BELLJAR_RUN }).filter(([, value]) => value !== undefined);
    const env = { ...Object.fromEntries(places), BELLJAR_ROOT: root };
    const call = (args: readonly string[]): Promise<CliResult> =>
      launch(t, args, { ...options, input: undefined, env }).done;
    const sandboxes = await readdir(join(root, "sandboxes")).catch(() => []);
    if (sandboxes.length > 0) {
      const ids = (await call(["ps", "-aq"])).stdout.toString().split("\n").filter(Boolean);
      if (ids.length > 0) await call(["rm", "-f", ...ids]);
    }
    await call(["daemon", "stop"]);
    await endStartingDaemons(root);
  });
}

/** A command that was killed may have started a daemon that nobody can reach yet. */
async function endStartingDaemons(root: string): Promise<void> {
  const find = async (): Promise<number[]> => {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const found = pids.map(async (pid) => {
      const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
      return words.includes(root) && words.some((word) => word.endsWith("/daemon/main.ts")) ? [Number(pid)] : [];
    });
    return (await Promise.all(found)).flat();
  };
  for (let pids = await find(); pids.length > 0; pids = await find()) {
    for (const pid of pids) process.kill(pid, "SIGTERM");
    await sleep(20);
  }
}

export function startCli(t: TestScope, args: readonly string[], options: CliOptions = {}): CliProcess {
  cleanUpRoot(t, options);
  return launch(t, args, options);
}

function launch(t: TestScope, args: readonly string[], options: CliOptions): CliProcess {
  const [program = BINARY, ...words] = [...(options.within ?? []), BINARY, ...args];
  const child = spawn(program, words, {
    cwd: options.cwd,
    env: { ...cliEnvironment(t), ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const cli = new CliProcess(child, options);
  t.after(() => cli.end());
  return cli;
}

export class CliProcess {
  readonly done: Promise<CliResult>;
  readonly #child: ChildProcess;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  constructor(child: ChildProcess, options: CliOptions) {
    this.#child = child;
    child.stdout?.on("data", (chunk: Buffer) => {
      this.#stdout.push(chunk);
      this.#bytes += chunk.length;
      this.#change();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#stderr.push(chunk);
      this.#change();
    });
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input);
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? TIMEOUT_MS);
    this.done = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (status, signal) => {
        clearTimeout(timer);
        this.#ended = true;
        this.#change();
        resolve({ status, signal, stdout: Buffer.concat(this.#stdout), stderr: this.stderrText() });
      });
    });
    this.done.catch(() => {});
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Kills what still runs; for the end of a test. */
  async end(): Promise<void> {
    if (!this.#ended) this.#child.kill("SIGKILL");
    await this.done;
  }

  stdoutText(): string {
    return Buffer.concat(this.#stdout).toString();
  }

  stderrText(): string {
    return Buffer.concat(this.#stderr).toString();
  }

  async waitForOutput(text: string): Promise<void> {
    await this.#until(() => this.stdoutText().includes(text), `"${text}" on standard output`);
  }

  async waitForBytes(count: number): Promise<void> {
    await this.#until(() => this.#bytes >= count, `${count} bytes on standard output`);
  }

  pauseOutput(): void {
    this.#child.stdout?.pause();
  }

  resumeOutput(): void {
    this.#child.stdout?.resume();
  }

  /** Goes away as a reader, as `head` does. */
  closeOutput(): void {
    this.#child.stdout?.destroy();
  }

  /** An instant chosen by time, for tests that interrupt at many of them; not a way to wait for something. */
  async afterMs(delayMs: number): Promise<void> {
    await sleep(delayMs);
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    while (!condition()) {
      if (this.#ended) throw new Error(`the command ended without ${what}; it said: ${this.stderrText()}`);
      await this.#changed.promise;
    }
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
