/** Runs programs for the development tools, with what they print going where ours goes. */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { join } from "node:path";

export const repository = join(import.meta.dirname, "..");

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Keep what it prints instead of passing it on: all of it, or standard output alone. */
  readonly capture?: boolean | "stdout";
}

export interface CommandResult {
  /** As a shell has it: 128 + N when ended by signal N. */
  readonly status: number;
  /** What was captured, both streams in one. */
  readonly output: string;
}

/** Runs a program in the repository to its end; a program that cannot be started is status 127. */
export async function runCommand(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const capture = options.capture ?? false;
  const child = spawn(program, args, {
    cwd: repository,
    env: { ...process.env, ...options.env },
    stdio: ["ignore", capture === false ? "inherit" : "pipe", capture === true ? "pipe" : "inherit"],
  });
  // Ctrl-C reaches the child by itself; a signal for this process alone is passed on, so that the child can clean up.
  const relay = (signal: NodeJS.Signals): void => {
    child.kill(signal);
  };
  const stay = (): void => {};
  process.on("SIGTERM", relay).on("SIGINT", stay);
  const output: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => output.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => output.push(chunk));
  try {
    return await new Promise((resolve) => {
      child.on("error", (error) => resolve({ status: 127, output: `${program}: ${error.message}\n` }));
      child.on("close", (code, signal) => {
        const status = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
        resolve({ status, output: Buffer.concat(output).toString("utf8") });
      });
    });
  } finally {
    process.off("SIGTERM", relay).off("SIGINT", stay);
  }
}

/** A program that an npm package brought. */
export function packageProgram(name: string): string {
  return join(repository, "node_modules/.bin", name);
}
