/** Small programs of the guest (mount, mkfifo, stty, ...): run to their end, with a time limit and a bounded output. */
import { spawn } from "node:child_process";
import { BelljarError } from "../src/base/errors.ts";
import { toolLimits } from "../src/base/limits.ts";

/** Runs one program; rejects with its standard error when it fails. */
export type RunTool = (command: string, args: readonly string[], options?: ToolOptions) => Promise<void>;

export interface ToolOptions {
  /** The directory to run it in. */
  readonly cwd?: string | undefined;
}

/** The guest has no others than these. */
export const GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** @throws BelljarError `AGENT_FAILED` with the end of what the program wrote to its standard error */
export const runTool: RunTool = (command, args, { cwd } = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "ignore", "pipe"], env: { PATH: GUEST_PATH } });
    const name = command === "busybox" ? (args[0] ?? command) : command;
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      errors = `${errors}${text}`.slice(-toolLimits.errorTailBytes);
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), toolLimits.timeoutMs);
    const fail = (how: string, cause?: unknown): void => {
      clearTimeout(timer);
      const words = errors.trim();
      const message = `${name} in the guest ${how}${words === "" ? "" : `: ${words}`}`;
      reject(new BelljarError("AGENT_FAILED", message, { cause }));
    };
    child.on("error", (cause) => fail("cannot be run", cause));
    child.on("close", (code, signal) => {
      if (code === 0) {
        clearTimeout(timer);
        resolve();
      } else fail(code === null ? `was ended by ${signal}` : `ended with status ${code}`);
    });
  });
