import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { BelljarError } from "../base/index.ts";
import { acquireLock, type LockOptions, withLock } from "./lock.ts";

async function lockPath(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-lock-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return join(dir, "lock");
}

const options = (mode: LockOptions["mode"], timeoutMs: number): LockOptions => ({ mode, timeoutMs, what: "the thing" });

function isLocked(error: unknown): boolean {
  return error instanceof BelljarError && error.reason === "LOCKED";
}

/** A process that holds the lock until it is killed; resolves once it has it. */
async function ownerProcess(t: TestContext, path: string): Promise<ChildProcess> {
  const program = `
    const { acquireLock } = await import(${JSON.stringify(new URL("./lock.ts", import.meta.url).href)});
    await acquireLock(${JSON.stringify(path)}, { mode: "exclusive", timeoutMs: 10_000, what: "the thing" });
    process.stdout.write("locked");
    process.stdin.resume();`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  return child;
}

test("an exclusive owner keeps others out, in this process too, until it lets go", async (t) => {
  const path = await lockPath(t);
  const lock = await acquireLock(path, options("exclusive", 0));
  await assert.rejects(acquireLock(path, options("exclusive", 0)), isLocked);
  await assert.rejects(acquireLock(path, options("shared", 0)), isLocked);
  await lock.release();
  await lock.release();
  await (await acquireLock(path, options("exclusive", 0))).release();
});

test("shared owners share, and keep an exclusive one out", async (t) => {
  const path = await lockPath(t);
  const [first, second] = [
    await acquireLock(path, options("shared", 0)),
    await acquireLock(path, options("shared", 0)),
  ];
  await first.release();
  await assert.rejects(acquireLock(path, options("exclusive", 0)), isLocked);
  await second.release();
  await (await acquireLock(path, options("exclusive", 0))).release();
});

test("the lock of a process that is killed is free at once, and the error names its pid before", async (t) => {
  const path = await lockPath(t);
  const owner = await ownerProcess(t, path);
  await assert.rejects(acquireLock(path, options("exclusive", 0)), (error) => {
    assert.ok(error instanceof BelljarError);
    assert.equal(error.reason, "LOCKED");
    assert.equal(error.facts["ownerPid"], owner.pid);
    return true;
  });
  const waiting = acquireLock(path, options("exclusive", 60_000));
  owner.kill("SIGKILL");
  await (await waiting).release();
});

test("a file system that is read-only keeps nobody from a lock for reading, and everybody from one for changing", async (t) => {
  const path = await lockPath(t);
  await (await acquireLock(path, options("exclusive", 0))).release();
  const program = `
    const { acquireLock } = await import(${JSON.stringify(new URL("./lock.ts", import.meta.url).href)});
    for (const mode of ["shared", "exclusive"]) {
      const lock = acquireLock(${JSON.stringify(path)}, { mode, timeoutMs: 0, what: "the thing" });
      console.log(mode, await lock.then(() => "locked", (error) => error.code));
    }`;
  const dir = dirname(path);
  const mounted =
    'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" --input-type=module --eval "$3"';
  const { stdout } = await promisify(execFile)("unshare", [
    ...["--map-root-user", "--mount", "sh", "-c", mounted, "sh"],
    ...[dir, process.execPath, program],
  ]);
  assert.equal(stdout, "shared locked\nexclusive EROFS\n");
});

test("waiting ends with the time limit and with the caller's signal", async (t) => {
  const path = await lockPath(t);
  const lock = await acquireLock(path, options("exclusive", 0));
  await assert.rejects(acquireLock(path, options("exclusive", 30)), isLocked);
  const controller = new AbortController();
  const waiting = acquireLock(path, { ...options("exclusive", 60_000), signal: controller.signal });
  controller.abort();
  await assert.rejects(waiting, (error) => error instanceof BelljarError && error.reason === "CANCELLED");
  await lock.release();
});

test("a child process does not inherit the lock", async (t) => {
  const path = await lockPath(t);
  const lock = await acquireLock(path, options("exclusive", 0));
  const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"], detached: true });
  t.after(() => child.kill("SIGKILL"));
  await once(child, "spawn");
  await lock.release();
  await (await acquireLock(path, options("exclusive", 0))).release();
});

test("work under the lock never overlaps", async (t) => {
  const path = await lockPath(t);
  let inside = 0;
  const work = (): Promise<void> =>
    withLock(path, options("exclusive", 30_000), async () => {
      inside += 1;
      assert.equal(inside, 1);
      await new Promise((resolve) => setImmediate(resolve));
      inside -= 1;
    });
  await Promise.all(Array.from({ length: 8 }, work));
});
