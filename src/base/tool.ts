/**
 * Runs a program of the host (`mkfs.erofs`, `skopeo`, ...) to its end. The child has an owner (the caller's promise), a time
 * limit, a bounded output, and dies with the caller's signal.
 */
import { spawn } from "node:child_process";
import type { FileHandle } from "node:fs/promises";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { cancelledError, throwIfAborted } from "./deadline.ts";
import { BelljarError, hasErrno } from "./errors.ts";
import { toolLimits } from "./limits.ts";
import { publishStep } from "./steps.ts";

export interface ToolOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
  /** Standard input; none unless given. */
  readonly input?: Readable | Uint8Array;
  /** In place of `input`: what the program has as its standard input. It is closed here once the program has it, or cannot be started. */
  readonly stdin?: FileHandle;
  /** Exit statuses taken for success; 0 unless told. */
  readonly successStatuses?: readonly number[];
}

export interface ToolResult {
  readonly stdout: Buffer;
  /** The last bytes of standard error. */
  readonly stderr: string;
  readonly exitCode: number;
}

/**
 * @throws BelljarError `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED` (facts: tool, exitCode or signal, and the end of its standard
 * error in the message), `DEADLINE_EXCEEDED`, `CANCELLED`; or what reading `input` threw.
 */
export async function runTool(tool: string, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  if (options.signal?.aborted === true) await options.stdin?.close();
  throwIfAborted(options.signal);
  return await publishStep("child", tool, () => runChild(tool, args, options));
}

async function runChild(tool: string, args: readonly string[], options: ToolOptions): Promise<ToolResult> {
  const { stdin } = options;
  await using _stdin = { [Symbol.asyncDispose]: async () => stdin?.close() };
  const child = spawn(tool, args, {
    cwd: options.cwd,
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", ...options.env },
    stdio: [stdin?.fd ?? (options.input === undefined ? "ignore" : "pipe"), "pipe", "pipe"],
  });
  void stdin?.close().catch(() => {});
  let ended: BelljarError | undefined;
  let killTimer: NodeJS.Timeout | undefined;
  const end = (cause: BelljarError): void => {
    if (ended !== undefined) return;
    ended = cause;
    child.kill("SIGTERM");
    killTimer = setTimeout(() => child.kill("SIGKILL"), toolLimits.killGraceMs);
  };
  const timeoutMs = options.timeoutMs ?? toolLimits.timeoutMs;
  const timer = setTimeout(() => {
    end(
      new BelljarError("DEADLINE_EXCEEDED", `${tool} did not end within ${timeoutMs} ms`, {
        facts: { tool, timeoutMs },
      }),
    );
  }, timeoutMs);
  const onAbort = (): void => end(cancelledError(options.signal));
  options.signal?.addEventListener("abort", onAbort, { once: true });

  const stdout: Buffer[] = [];
  let stdoutBytes = 0;
  child.stdout?.on("data", (chunk: Buffer) => {
    stdoutBytes += chunk.length;
    if (stdoutBytes <= toolLimits.outputMaxBytes) stdout.push(chunk);
    else
      end(
        new BelljarError("HOST_TOOL_FAILED", `${tool} wrote more than ${toolLimits.outputMaxBytes} bytes`, {
          facts: { tool },
        }),
      );
  });
  let stderr: Buffer = Buffer.alloc(0);
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr = Buffer.concat([stderr, chunk]).subarray(-toolLimits.errorTailBytes);
  });

  let inputError: unknown;
  const feed = feedInput(child.stdin, options.input).catch((error: unknown) => {
    // A program may stop reading before the end of its input; whether that is an error is for its exit status to say.
    if (hasErrno(error, "EPIPE") || hasErrno(error, "ERR_STREAM_PREMATURE_CLOSE")) return;
    inputError = error;
    end(BelljarError.from(error));
  });
  try {
    const status = await new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve({ code, signal }));
    }).catch((error: unknown) => {
      if (!hasErrno(error, "ENOENT")) throw error;
      throw new BelljarError("HOST_TOOL_MISSING", `the program ${tool} is not installed`, {
        facts: { tool },
        cause: error,
      });
    });
    await feed;
    if (inputError !== undefined) throw inputError;
    if (ended !== undefined) throw ended;
    const text = stderr.toString("utf8");
    if (status.code !== null && (options.successStatuses ?? [0]).includes(status.code)) {
      return { stdout: Buffer.concat(stdout), stderr: text, exitCode: status.code };
    }
    const how = status.code === null ? `was ended by ${status.signal}` : `ended with status ${status.code}`;
    const last = text.trim().split("\n").slice(-3).join("; ");
    throw new BelljarError("HOST_TOOL_FAILED", `${tool} ${how}${last === "" ? "" : `: ${last}`}`, {
      facts: { tool, ...(status.code === null ? { signal: String(status.signal) } : { exitCode: status.code }) },
    });
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    options.signal?.removeEventListener("abort", onAbort);
  }
}

async function feedInput(stdin: NodeJS.WritableStream | null, input: Readable | Uint8Array | undefined): Promise<void> {
  if (stdin === null || input === undefined) return;
  if (input instanceof Uint8Array) {
    await new Promise<void>((resolve, reject) => {
      stdin.on("error", reject);
      stdin.end(input, resolve);
    });
    return;
  }
  await pipeline(input, stdin);
}
