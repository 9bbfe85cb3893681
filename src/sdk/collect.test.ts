import assert from "node:assert/strict";
import { test } from "node:test";
import { collectResult } from "../base/index.ts";
import { type ProcessCalls, StreamedProcess } from "./process-streams.ts";

const STATUS = {
  exitCode: 2,
  signal: undefined,
  oomKilled: false,
  startedAtMs: 0,
  exitedAtMs: 1,
  launchError: undefined,
};

/** A process that writes these pieces, one for each reading. */
function processOf(stdout: readonly string[], stderr: readonly string[], more: Partial<ProcessCalls> = {}) {
  const rest = { 1: stdout.map((text) => Buffer.from(text)), 2: stderr.map((text) => Buffer.from(text)) };
  const calls: string[] = [];
  const process = new StreamedProcess(
    { containerId: "c", id: "p", pid: 1, tty: false, stdoutOffset: 0n, stderrOffset: 0n },
    {
      readOutput: async ({ stream, offset, detach }) => {
        if (detach === true) calls.push(`detach ${stream}`);
        const data = rest[stream].shift() ?? new Uint8Array(0);
        return { offset, data, end: rest[stream].length === 0 };
      },
      writeInput: async ({ offset, data }) => ({ accepted: offset + BigInt(data.length), closed: false }),
      waitForEnd: async () => STATUS,
      signal: async (number) => void calls.push(`signal ${number}`),
      resize: async () => {},
      release: async () => void calls.push("release"),
      ...more,
    },
  );
  return { process, calls };
}

test("lines are put together across pieces, of both streams, the last one without a line feed too", async () => {
  const { process } = processOf(["a\nb", "b\n", "\nlä".slice(0, 3), "st"], ["e1\ne2\n"]);
  const lines: string[] = [];
  for await (const { stream, text } of process.lines()) lines.push(`${stream}: ${text}`);
  assert.deepEqual(
    lines.filter((line) => line.startsWith("stdout")),
    ["stdout: a", "stdout: bb", "stdout: ", "stdout: läst"],
  );
  assert.deepEqual(
    lines.filter((line) => line.startsWith("stderr")),
    ["stderr: e1", "stderr: e2"],
  );
});

test("a result is collected and its process forgotten", async () => {
  const { process, calls } = processOf(["ab", "c"], ["x"]);
  assert.deepEqual(await collectResult(process), { exitCode: 2, stdout: "abc", stderr: "x" });
  assert.deepEqual(calls, ["release"]);
});

test("a caller that gives up ends the process", async () => {
  const { process, calls } = processOf(["ab"], [], { waitForEnd: () => new Promise(() => {}) });
  await assert.rejects(collectResult(process, { signal: AbortSignal.abort() }), { reason: "CANCELLED" });
  assert.deepEqual(calls, ["signal 9", "release"]);
});

test("bytes that are gone are counted, and a reader that leaves is told of", async () => {
  const calls: boolean[] = [];
  const { process } = processOf([], [], {
    readOutput: async ({ detach }) => {
      calls.push(detach === true);
      return { offset: 100n, data: Buffer.from("late"), end: false };
    },
  });
  const reader = process.stdout.getReader();
  await reader.read();
  assert.equal(process.lostBytes, 100n);
  await reader.cancel();
  assert.deepEqual(calls, [false, true]);
});
