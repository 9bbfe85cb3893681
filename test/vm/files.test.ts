/** Files of containers in a real VM: what goes in comes out, and a hostile container leads nobody out of it. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import { type FileEvent, Runtime, resolvePaths } from "../../src/sdk/index.ts";
import { runCli, startCli, type TestScope, tempDir, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

const MB = 1_000_000;

async function open(t: TestScope): Promise<Runtime> {
  const dir = await tempDir(t);
  const runtime = await Runtime.open({
    paths: resolvePaths({ root: join(dir, "root"), run: join(dir, "run") }, process.env, process.getuid?.() ?? 0),
  });
  t.after(() => runtime[Symbol.asyncDispose]());
  return runtime;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const rejects = (call: Promise<unknown>, reason: string): Promise<void> => assert.rejects(call, { reason });

test("files of a running container", async (t) => {
  const runtime = await open(t);
  const container = { command: ["sleep", "1000"], tmpfs: ["/small:size=1m"] };
  await using sandbox = await runtime.sandboxes.create({ image: "busybox", container }, { start: false });
  const { files } = sandbox;
  await files.write("/early", "before the start");
  assert.equal(Buffer.from(await files.read("/early")).toString(), "before the start");
  await sandbox.start();
  const run = async (script: string): Promise<string> => {
    const { exitCode, stdout, stderr } = await sandbox.exec(["sh", "-c", script]);
    assert.equal(exitCode, 0, `${script}: ${stderr}`);
    return stdout;
  };

  const data = randomBytes(20 * MB);
  assert.equal(await run("cat /early"), "before the start");
  const uploadMs = await timed(() => files.write("/data", data, { mode: 0o640, user: "7:8" }));
  assert.equal(await run("sha256sum < /data; stat -c '%a %u %g' /data"), `${sha256(data)}  -\n640 7 8\n`);
  const downloadMs = await timed(async () => assert.equal(sha256(await files.read("/data")), sha256(data)));
  t.diagnostic(`up ${(20_000 / uploadMs).toFixed(1)} MB/s, down ${(20_000 / downloadMs).toFixed(1)} MB/s`);
  const smallMs = await timed(async () => {
    for (let index = 0; index < 20; index += 1) await files.write(`/small${index}`, "x");
  });
  t.diagnostic(`a small file in ${(smallMs / 20).toFixed(1)} ms`);

  // Through links that lead to the top, the container's root is what is found there.
  await run(
    "echo inside > /marker; mkdir /l; cd /l; ln -s / top; ln -s /proc/1/root procroot; ln -s /proc/self/root self",
  );
  await run("cd /l; ln -s ../../../../../../../.. up; ln -s loop loop; ln -s /proc/1/cwd cwd");
  for (const name of ["top", "up", "procroot"]) {
    const found = await files.read(`/l/${name}/marker`).then(
      (bytes) => Buffer.from(bytes).toString(),
      (error) => error.reason,
    );
    t.diagnostic(`${name}: ${found}`);
    assert.ok(["inside\n", "FILE_NOT_FOUND", "PATH_INVALID"].includes(found), `${name}: ${found}`);
    await rejects(files.read(`/l/${name}/run/belljar/containers`), "FILE_NOT_FOUND");
    await files.write(`/l/${name}/tmp-${name}`, "x").catch(() => {});
  }
  await rejects(files.read("/l/loop"), "PATH_INVALID");
  await rejects(files.read("/../../run/belljar/containers"), "FILE_NOT_FOUND");
  for (const path of ["/proc/1/environ", "/proc/kmsg", "/sys/kernel/uevent_seqnum", "/proc/sysrq-trigger"]) {
    await rejects(files.read(path), "PATH_INVALID");
  }
  await rejects(files.write("/proc/sys/kernel/hostname", "x"), "PATH_INVALID");
  await rejects(files.read("/dev/zero"), "NOT_A_FILE");

  // As the container sees it: its mounts, and nothing of the guest's own.
  await files.write("/dev/shm/shared", "by the host");
  assert.equal(await run("cat /dev/shm/shared"), "by the host");
  await rejects(files.write("/small/large", randomBytes(2 * MB)), "CONTAINER_DISK_FULL");
  assert.equal(await run("ls -a /small"), ".\n..\n");

  const events: FileEvent[] = [];
  const stop = new AbortController();
  await files.makeDirectory("/watched");
  const changes = await files.watch("/watched", { signal: stop.signal });
  await run("cd /watched; echo 1 > new; mv new other; rm other");
  for await (const event of changes) {
    events.push(event);
    if (event.kind === "removed" && event.name === "other") break;
  }
  assert.ok(events.some(({ kind, name }) => kind === "created" || (kind === "removed" && name === "new")));

  await files.remove("/l", { recursive: true });
  assert.equal(await run("cat /marker"), "inside\n");
  await sandbox.pause();
  await rejects(files.stat("/marker"), "INVALID_TRANSITION");
  await sandbox.resume();
  await sandbox.stop({ timeoutMs: 0 });
  await rejects(files.stat("/marker"), "INVALID_TRANSITION");
});

async function timed(work: () => Promise<unknown>): Promise<number> {
  const beganMs = performance.now();
  await work();
  return performance.now() - beganMs;
}

test("cp by docker's rules, there and back", async (t) => {
  const dir = await tempDir(t);
  const at = (...names: string[]): string => join(dir, ...names);
  const cp = async (src: string, dst: string, ...options: string[]): Promise<void> => {
    const { status, stderr } = await runCli(t, ["cp", ...options, src, dst]);
    assert.equal(status, 0, `cp ${src} ${dst}: ${stderr}`);
  };
  const fails = async (src: string, dst: string, message: RegExp): Promise<void> => {
    const { status, stderr } = await runCli(t, ["cp", src, dst]);
    assert.notEqual(status, 0);
    assert.match(stderr, message);
  };
  const { status } = await runCli(t, ["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
  assert.equal(status, 0);
  const shell = async (script: string): Promise<string> => {
    const result = await runCli(t, ["exec", "box", "sh", "-c", script]);
    assert.equal(result.status, 0, result.stderr);
    return result.stdout.toString();
  };

  await mkdir(at("tree/sub/empty"), { recursive: true });
  const data = randomBytes(500_000);
  await writeFile(at("tree/data"), data, { mode: 0o640 });
  await writeFile(at("tree/sub/script"), "#!/bin/sh\n", { mode: 0o755 });
  await writeFile(at("tree/nothing"), "");
  await symlink("/etc/passwd", at("tree/link"));
  await chmod(at("tree/sub"), 0o750);
  await utimes(at("tree/sub"), 1_000_000_000, 1_000_000_000);
  await cp(at("tree"), "box:/new");
  await cp(at("tree"), "box:/new");
  await cp(`${at("tree")}/.`, "box:/new/contents");
  assert.equal(
    await shell("cd /new; stat -c '%a %n' data sub sub/script tree/sub contents/sub; readlink link"),
    ["640 data", "750 sub", "755 sub/script", "750 tree/sub", "750 contents/sub", "/etc/passwd", ""].join("\n"),
  );
  assert.equal(await shell("stat -c '%Y %u' /new/sub"), "1000000000 0\n");
  await cp("box:/new/tree", at("back"));
  const summary = async (root: string): Promise<string> =>
    (await runTool("sh", ["-c", SUMMARY, "sh", root])).stdout.toString();
  assert.equal(await summary(at("back")), await summary(at("tree")));
  assert.equal(sha256(await readFile(at("back/data"))), sha256(data));
  await cp("box:/new/tree", at("back"));
  assert.equal(await summary(at("back/tree")), await summary(at("tree")));
  await cp("box:/new/tree/.", at("back"));
  await cp("box:/new/data", at("one"));
  await cp(at("one"), "box:/new/sub/");
  await fails(at("one"), "box:/absent/", /not a directory that exists/);
  await fails(at("one"), "box:/absent/one", /no such file/);
  await fails(at("tree"), "box:/new/data", /not a directory/);
  await fails(at("absent"), "box:/new", /does not exist/);
  await fails("box:/new/absent", at("x"), /no such file/);
  await fails(at("one"), at("two"), /one side must be in a container/);

  const tar = await runCli(t, ["cp", "box:/new/tree", "-"]);
  assert.equal(tar.status, 0, tar.stderr);
  await writeFile(at("tree.tar"), tar.stdout);
  await mkdir(at("untarred"));
  await runTool("tar", ["-xf", at("tree.tar"), "-C", at("untarred")]);
  assert.equal(await summary(at("untarred/tree")), await summary(at("tree")));
  await shell("mkdir /in");
  const put = await runCli(t, ["cp", "-", "box:/in"], { input: tar.stdout });
  assert.equal(put.status, 0, put.stderr);
  await cp("box:/in/tree", at("again"));
  assert.equal(await summary(at("again")), await summary(at("tree")));

  // What a container can do to whoever copies out of it.
  await writeFile(at("victim"), "as it was");
  await shell(
    `mkdir /evil; cd /evil; ln -s ${at("victim")} data; chmod 4755 /bin/busybox; cp -p /bin/busybox suid; mkfifo fifo`,
  );
  const evil = await runCli(t, ["cp", "box:/evil", at("evil")]);
  assert.equal(evil.status, 0, evil.stderr);
  assert.match(evil.stderr, /fifo.* was left out/);
  assert.equal((await stat(at("evil/suid"))).mode & 0o7777, 0o755);
  await shell("cd /evil; rm data; echo changed > data");
  await cp("box:/evil/.", at("evil"));
  assert.equal(await readFile(at("victim"), "utf8"), "as it was");
  assert.equal(await readFile(at("evil/data"), "utf8"), "changed\n");

  // Half a copy leaves nothing.
  await mkdir(at("blocked/tree/data"), { recursive: true });
  await fails("box:/new/tree", at("blocked"), /is a directory/);
  assert.deepEqual(await readdir(at("blocked/tree")), ["data"]);
  await shell("dd if=/dev/zero of=/new/tree/big bs=1M count=30 2> /dev/null");
  const cut = startCli(t, ["cp", "box:/new/tree", at("cut")]);
  const copied = async (): Promise<string[]> =>
    (await readdir(dir)).filter((name) => name.startsWith(".belljar") || name === "cut");
  // It has begun, and 30 MB take a while.
  await until(async () => (await copied()).length > 0);
  cut.kill("SIGINT");
  assert.equal((await cut.done).status, 130);
  assert.deepEqual(await copied(), []);
});

/** Paths, modes, times in seconds, contents. */
const SUMMARY = `cd "$1"; find . -printf '%P %y %m %l %Ts\\n' | sort; find . -type f | sort | xargs sha256sum`;
