import assert from "node:assert/strict";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { apiLimits, silentLog } from "../base/index.ts";
import { connectDaemon, type Paths, Runtime } from "./index.ts";

async function makePaths(t: TestScope): Promise<Paths> {
  const dir = await tempDir(t);
  const place = (name: string): string => join(dir, name);
  const [root, run, guest] = [place("root"), place("run"), place("guest")];
  return { root, run, guest, templates: place("templates"), cache: place("cache") };
}

test("a daemon is started once for all who ask, and ends when it is told to", async (t) => {
  const paths = await makePaths(t);
  const started: number[] = [];
  const options = { paths, onDaemonStarted: (pid: number) => void started.push(pid) };
  const runtimes = await Promise.all([1, 2, 3].map(() => Runtime.connect(options)));
  const pids = await Promise.all(runtimes.map(async (runtime) => (await runtime.daemon()).pid));
  assert.equal(new Set(pids).size, 1);
  assert.deepEqual(started, pids.slice(0, 1), "whoever started it is told, and nobody else");
  for (const runtime of runtimes) assert.deepEqual(await runtime.sandboxes.list(), []);
  await assert.rejects(Runtime.open({ paths }), { reason: "ROOT_LOCKED", code: "unavailable" });
  for (const runtime of runtimes) await runtime[Symbol.asyncDispose]();
  // Those that came second end by themselves, some of them later than the tests go on.
  while ((await daemonsOf(paths.root)) > 1) await new Promise((resolve) => setTimeout(resolve, 20));
  const socketPath = join(paths.run, "belljard.sock");
  const daemon = await connectDaemon({ paths, log: silentLog, socketPath, startDaemon: false });
  assert.equal(await daemon.stop(), pids[0]);
  await assert.rejects(stat(socketPath), { code: "ENOENT" });
  await using runtime = await Runtime.open({ paths });
  assert.deepEqual(await runtime.sandboxes.list(), []);
  assert.equal(((await stat(join(paths.root, "belljard.log"))).mode & 0o777).toString(8), "600");
});

test("of many clients at once one starts a daemon, and the others wait for it", async (t) => {
  const paths = await makePaths(t);
  const runtimes = await Promise.all(Array.from({ length: 8 }, () => Runtime.connect({ paths })));
  const pids = await Promise.all(runtimes.map(async (runtime) => (await runtime.daemon()).pid));
  assert.equal(new Set(pids).size, 1);
  for (const runtime of runtimes) await runtime[Symbol.asyncDispose]();
  const daemon = await connectDaemon({
    paths,
    log: silentLog,
    socketPath: join(paths.run, "belljard.sock"),
    startDaemon: false,
  });
  await daemon.stop();
  const said = await readFile(join(paths.root, "belljard.log"), "utf8");
  assert.equal(said.match(/ listening /g)?.length, 1);
  assert.doesNotMatch(said, /another process owns the root|error/);
});

/** How many processes have been started as a daemon of this root and have not ended. */
async function daemonsOf(root: string): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.split("\0").includes(root)).length;
}

test("a daemon that cannot start says why, and the log says more", async (t) => {
  const paths = await makePaths(t);
  const file = join(await tempDir(t), "file");
  await writeFile(file, "");
  const broken = { ...paths, run: join(file, "run") };
  const connecting = Runtime.connect({ paths: broken, socketPath: join(paths.guest, "none.sock") });
  await assert.rejects(connecting, { reason: "DAEMON_START_FAILED", message: /ENOTDIR/ });
  assert.match(await readFile(join(paths.root, "belljard.log"), "utf8"), /ENOTDIR/);
});

test("a log that has grown is put aside at the next start", async (t) => {
  const paths = await makePaths(t);
  const runtime = await Runtime.open({ paths });
  await runtime[Symbol.asyncDispose]();
  const log = join(paths.root, "belljard.log");
  await writeFile(log, "x".repeat(apiLimits.logMaxBytes + 1));
  const socketPath = join(paths.run, "belljard.sock");
  const daemon = await connectDaemon({ paths, log: silentLog, socketPath, startDaemon: true });
  await daemon.stop();
  assert.equal((await stat(`${log}.old`)).size, apiLimits.logMaxBytes + 1);
  assert.match(await readFile(log, "utf8"), /listening/);
});
