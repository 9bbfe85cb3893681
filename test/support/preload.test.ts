import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { test } from "./harness.ts";
import { findLeaks, networkObjects } from "./leaks.ts";

const run = promisify(execFile);
const PROGRAM = join(import.meta.dirname, "../programs/leaks/leak.ts");
const PRELOAD = join(import.meta.dirname, "preload.ts");

/** What the harness must say about each kind of leak. */
const kinds: Readonly<Record<string, RegExp>> = {
  child: /process \d+: sleep 300/,
  "detached process": /process \d+: sleep 300/,
  "process without environment": /process \d+: tail -f/,
  "test that leaves a process": /process \d+: sleep 300/,
  "pid file of virtiofsd": /file \/run\/virtiofsd\/\.\S+\.t\.s\.pid/,
  "temporary file": /file t\/left/,
  "state of a root": /file root\/sandboxes/,
  "open file": /open file/,
  "unix socket": /socket .*\/t\/s/,
  "TCP port": /TCP server 0100007F:/,
  "watched file": /watched file/,
  ...(process.getuid?.() === 0 ? { mount: /mount .*\/t\/m/, "loop device": /loop device loop\d+: .*\/t\/disk/ } : {}),
};

test("a test file that leaves something behind fails, and says what; what it has started is ended", async (t) => {
  t.after(() => removeLeaks(t.dir));
  const runs = Object.entries(kinds).map(async ([kind, message]) => ({
    kind,
    message,
    ...(await runLeak(kind, t.dir)),
  }));
  for (const { kind, message, status, output } of await Promise.all(runs)) {
    assert.equal(status, 1, kind);
    assert.match(output, /left behind/, kind);
    assert.match(output, message, kind);
  }
  const leaks = await findLeaks({ testId: "none", dir: t.dir, before: await networkObjects() });
  assert.deepEqual(
    leaks.filter((leak) => leak.startsWith("process ") || leak.includes("/run/virtiofsd/")),
    [],
  );
});

test("a test file that leaves nothing passes", async (t) => {
  const { status, output } = await runLeak("nothing", t.dir);
  assert.equal(status, 0, output);
});

async function runLeak(kind: string, dir: string): Promise<{ status: number; output: string }> {
  const args = ["--test", "--test-force-exit", "--test-reporter=tap", `--import=${PRELOAD}`, PROGRAM];
  const env = { PATH: process.env["PATH"] ?? "", TMPDIR: dir, LEAK: kind };
  const ended = run(process.execPath, args, { env });
  const status = new Promise<number>((resolve) => ended.child.once("exit", (code) => resolve(code ?? -1)));
  const output = await ended.then(
    ({ stdout }) => stdout,
    (error: unknown) => (error instanceof Error && "stdout" in error ? String(error.stdout) : String(error)),
  );
  return { status: await status, output: output.replaceAll("# ", "") };
}

/** What is left after all, since no test may take it for its own: found as a place. */
async function removeLeaks(dir: string): Promise<void> {
  for (const line of (await readFile("/proc/self/mountinfo", "utf8")).split("\n")) {
    const place = line.split(" ")[4];
    if (place?.startsWith(dir)) await run("umount", [place]);
  }
  for (const name of await readdir("/sys/block")) {
    const backing = await readFile(`/sys/block/${name}/loop/backing_file`, "utf8").catch(() => "");
    if (backing.startsWith(dir)) await run("losetup", ["--detach", `/dev/${name}`]);
  }
  for (const name of await readdir(dir)) if (name.startsWith("f-")) await rm(join(dir, name), { recursive: true });
}
