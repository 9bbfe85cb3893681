/** A process's output as lines, of both streams in the order in which they come. */
import { streamLimits } from "./limits.ts";

export interface OutputLine {
  readonly stream: "stdout" | "stderr";
  /** Without its line feed. */
  readonly text: string;
}

/** What has output: a process, wherever it is. */
export interface OutputStreams {
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
}

/** The lines of both streams as they come; a last one without a line feed counts. */
export async function* linesOf(process: OutputStreams): AsyncGenerator<OutputLine> {
  const streams = [lines("stdout", process.stdout), lines("stderr", process.stderr)];
  const next = new Map(streams.map((each) => [each, each.next().then((result) => ({ each, result }))]));
  try {
    while (next.size > 0) {
      const { each, result } = await Promise.race(next.values());
      if (result.done === true) next.delete(each);
      else {
        yield result.value;
        next.set(
          each,
          each.next().then((result) => ({ each, result })),
        );
      }
    }
  } finally {
    await Promise.all([process.stdout, process.stderr].map((each) => (each.locked ? undefined : each.cancel())));
  }
}

async function* lines(stream: OutputLine["stream"], bytes: AsyncIterable<Uint8Array>): AsyncGenerator<OutputLine> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of bytes) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    // A line without an end is handed on in pieces rather than kept.
    if (rest.length > streamLimits.collectMaxBytes) {
      parts.push(rest);
      rest = "";
    }
    for (const text of parts) yield { stream, text };
  }
  rest += decoder.decode();
  if (rest !== "") yield { stream, text: rest };
}
