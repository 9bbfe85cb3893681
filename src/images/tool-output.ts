/** The standard output of a program as a stream. The child ends with the generator, however that ends. */
import { spawn } from "node:child_process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BelljarError, hasErrno, toolLimits } from "../base/index.ts";

export interface ToolOutputOptions {
  readonly input?: AsyncIterable<Buffer>;
}

/** @throws BelljarError `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED`; what the input throws */
export async function* toolOutput(
  tool: string,
  args: readonly string[],
  options: ToolOutputOptions = {},
): AsyncGenerator<Buffer> {
  const child = spawn(tool, args, {
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
    stdio: "pipe",
  });
  if (options.input === undefined) child.stdin.end();
  let errorTail: Buffer = Buffer.alloc(0);
  child.stderr.on("data", (chunk: Buffer) => {
    errorTail = Buffer.concat([errorTail, chunk]).subarray(-toolLimits.errorTailBytes);
  });
  const ended = new Promise<string>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) =>
      resolve(code === null ? `was ended by ${signal}` : code === 0 ? "" : `ended with status ${code}`),
    );
  });
  ended.catch(() => {});
  const fed = feed(child.stdin, options.input);
  try {
    for await (const chunk of child.stdout) if (Buffer.isBuffer(chunk)) yield chunk;
    const inputError = await fed;
    if (inputError !== undefined) throw inputError;
    const how = await ended;
    if (how === "") return;
    const last = errorTail.toString("utf8").trim().split("\n").slice(-3).join("; ");
    throw new BelljarError("HOST_TOOL_FAILED", `${tool} ${how}${last === "" ? "" : `: ${last}`}`, { facts: { tool } });
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    throw new BelljarError("HOST_TOOL_MISSING", `the program ${tool} is not installed`, {
      facts: { tool },
      cause: error,
    });
  } finally {
    child.kill("SIGKILL");
    await ended.catch(() => {});
    await fed;
  }
}

/** Answers the error of the input, if any. A program may stop reading early; its exit status says whether that is an error. */
async function feed(stdin: NodeJS.WritableStream, input: AsyncIterable<Buffer> | undefined): Promise<unknown> {
  if (input === undefined) return undefined;
  try {
    await pipeline(Readable.from(input, { objectMode: false }), stdin);
    return undefined;
  } catch (error) {
    return hasErrno(error, "EPIPE") || hasErrno(error, "ERR_STREAM_PREMATURE_CLOSE") ? undefined : error;
  }
}
