/** The guest's own program, on this host: it is a static one, and what it asks of the kernel every Linux has. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool, silentLog } from "../../src/base/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { decodeWakeAnswer, encodeWake, WAKE_ANSWER_BYTES, type WakeStep } from "../../src/protocol/index.ts";
import { resolvePaths } from "../../src/sdk/paths.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

const entropy = Buffer.alloc(64, 1);

interface Program {
  /** @param pieces of one message, as they come */
  readonly ask: (...pieces: readonly Uint8Array[]) => Promise<readonly [errno: number, steps: number]>;
  readonly child: ChildProcess;
}

async function start(t: TestScope, path: string): Promise<Program> {
  const child = spawn(path, [], { stdio: ["pipe", "pipe", "ignore"] });
  t.after(async () => {
    child.kill("SIGKILL");
    await until(() => child.exitCode !== null || child.signalCode !== null);
  });
  child.stdin.on("error", () => {});
  const ask: Program["ask"] = async (...pieces) => {
    const answer = new Promise<Buffer>((resolve) => child.stdout.once("data", resolve));
    for (const piece of pieces) await new Promise((resolve) => child.stdin.write(piece, resolve));
    const bytes = await answer;
    assert.equal(bytes.length, WAKE_ANSWER_BYTES);
    const { errno, steps } = decodeWakeAnswer(bytes);
    return [errno, steps];
  };
  return { ask, child };
}

test("the wake program: each message as a whole, step by step, and nothing after the step that fails", async (t) => {
  const dir = await tempDir(t);
  const root = join(dir, "root");
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  const { rootPath } = await openGuestImages({ dir: guest, log: silentLog }).current();
  await runTool("fsck.erofs", [`--extract=${root}`, rootPath], { timeoutMs: 120_000 });
  const path = join(dir, "wake");
  await writeFile(path, await readFile(join(root, "bin/belljar-wake")));
  await chmod(path, 0o755);
  await runTool("rm", ["-rf", root]);
  const { ask, child } = await start(t, path);

  const [one, other] = [join(dir, "one"), join(dir, "other")];
  for (const file of [one, other]) await writeFile(file, "what was there before");
  const victim = spawn("sleep", ["1000"], { stdio: "ignore" });
  t.after(() => void victim.kill("SIGKILL"));
  const steps: WakeStep[] = [
    { kind: "write", path: one, text: "short" },
    { kind: "kill", pid: victim.pid ?? 0 },
    { kind: "write", path: other, text: "x".repeat(4_000) },
  ];
  // The clock of this host is left alone.
  assert.deepEqual(await ask(encodeWake({ entropy, steps })), [0, 3]);
  assert.equal(await readFile(one, "utf8"), "short");
  assert.equal(await readFile(other, "utf8"), "x".repeat(4_000));
  await until(() => victim.signalCode === "SIGKILL", { what: "the end of the process" });

  // In pieces, however they come; also of a process that is no more.
  const again = encodeWake({ entropy, steps: [...steps, { kind: "write", path: one, text: "" }] });
  assert.deepEqual(await ask(again.subarray(0, 3), again.subarray(3, 100), again.subarray(100)), [0, 4]);
  assert.equal(await readFile(one, "utf8"), "");

  // ENOENT; what stands after it is not done.
  await mkdir(join(dir, "d"));
  const missing: WakeStep[] = [
    { kind: "write", path: one, text: "1" },
    { kind: "write", path: join(dir, "d/none"), text: "2" },
    { kind: "write", path: other, text: "3" },
  ];
  assert.deepEqual(await ask(encodeWake({ entropy, steps: missing })), [2, 1]);
  assert.deepEqual([await readFile(one, "utf8"), (await readFile(other, "utf8")).length], ["1", 4_000]);

  // Steps that are none: EINVAL, and it goes on with the next message.
  for (const [at, value] of [
    [96, 3],
    [100, 127],
    [100, 4_096],
    [104, 4_096],
  ] as const) {
    const broken = encodeWake({ entropy, steps: [{ kind: "write", path: one, text: "no" }] });
    broken.writeUInt32LE(value, at);
    assert.deepEqual(await ask(broken), [22, 0], `${value} at ${at}`);
  }
  assert.equal(await readFile(one, "utf8"), "1");
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [] })), [0, 0]);

  // A message that cannot be one is the end of it.
  child.stdin?.write(Buffer.alloc(96));
  await until(() => child.exitCode === 2, { what: "its end" });
});
