/** What goes wrong on the way to a running container: each ends in time, says one clear line, and leaves nothing. */
import assert from "node:assert/strict";
import { cp, mkdir, open, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { resolvePaths } from "../../src/sdk/index.ts";
import { cliEnvironment, runCli, startCli, type TestScope, tempDir, test } from "../support/harness.ts";

test("an unknown image is named, with what to do", async (t) => {
  const { status, stderr } = await runCli(t, ["run", "no-such-image", "true"]);
  assert.equal(status, 125);
  assert.match(stderr, /^belljar: .*no-such-image.*\n.*belljar image/);
});

test("an unknown option, a bad size and a bad name are refused before anything starts", async (t) => {
  for (const [args, expected] of [
    [["run", "--no-such-option", "busybox"], /no-such-option/],
    [["run", "-m", "lots", "busybox"], /--memory "lots"/],
    [["run", "-m", "1m", "busybox"], /memory of 1 MiB/],
    [["run", "--name", "../../etc", "busybox"], /name "\.\.\/\.\.\/etc"/],
    [["run", "--cap-add", "NOT_A_CAP", "busybox"], /NOT_A_CAP/],
    [["run", "--hostname", "-x", "busybox"], /hostname "-x"/],
    [["run"], /missing required argument 'image'/],
  ] as const) {
    const { status, stderr } = await runCli(t, [...args]);
    assert.equal(status, 125, args.join(" "));
    assert.match(stderr, expected);
  }
});

test("a VM larger than the host's free memory is refused with both figures", async (t) => {
  const { status, stderr } = await runCli(t, ["run", "-m", "64g", "busybox", "true"]);
  assert.equal(status, 125);
  assert.match(stderr, /^belljar: .*65536 MiB.* MiB/);
});

test("without QEMU the package is named", async (t) => {
  // A PATH that has everything of the real one but QEMU.
  const bin = await tempDir(t);
  for (const dir of ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]) {
    for (const name of await readdir(dir)) {
      if (!name.startsWith("qemu-system")) await symlink(join(dir, name), join(bin, name)).catch(() => {});
    }
  }
  const { status, stderr } = await runCli(t, ["run", "busybox", "true"], { env: { PATH: bin } });
  assert.equal(status, 125);
  assert.match(stderr, /^belljar: .*QEMU.*\n.*qemu-system-x86/i);
});

for (const [name, script, expected] of [
  ["is too old", 'echo "QEMU emulator version 4.0.1"', /4\.0\.1/],
  [
    "dies at start",
    'case "$*" in *--version*) echo "QEMU emulator version 7.2.22";; *) echo "no luck today" >&2; exit 1;; esac',
    /no luck today/,
  ],
] as const) {
  test(`a QEMU that ${name} is reported with its own words`, async (t) => {
    const bin = await tempDir(t);
    await writeFile(join(bin, "qemu-system-x86_64"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const path = `${bin}:${process.env["PATH"]}`;
    const { status, stderr } = await runCli(t, ["run", "--accel", "tcg", "busybox", "true"], { env: { PATH: path } });
    assert.equal(status, 125);
    assert.match(stderr, expected);
    assert.equal(stderr.startsWith("belljar: "), true);
  });
}

test("a guest image with one flipped byte is refused", async (t) => {
  const dir = await tempDir(t);
  const shared = resolvePaths({}, process.env, process.getuid?.() ?? 0).guest;
  await cp(shared, dir, { recursive: true, verbatimSymlinks: true, filter: (path) => !path.endsWith("/cache") });
  const env = { BELLJAR_GUEST: dir };
  assert.equal((await runCli(t, ["run", "busybox", "true"], { env })).status, 0);
  const digest = (await runCli(t, ["guest", "ls", "--json"], { env })).stdout.toString();
  const image = JSON.parse(digest.split("\n")[0] ?? "").digest.replace("sha256:", "");
  const rootImage = (await readdir(join(dir, image))).find((name) => name.endsWith(".erofs"));
  assert.notEqual(rootImage, undefined);
  const file = await open(join(dir, image, rootImage ?? ""), "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 1_000_000);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 1_000_000);
  await file.close();
  const verified = await runCli(t, ["guest", "verify"], { env });
  assert.equal(verified.status, 125);
  assert.match(verified.stderr, /erofs/);
  const run = await runCli(t, ["run", "busybox", "true"], { env });
  assert.equal(run.status, 125);
  assert.match(run.stderr, /damaged.*\n.*guest build/);
});

test("without a guest image the command that builds one is named", async (t) => {
  const { status, stderr } = await runCli(t, ["run", "busybox", "true"], { env: { BELLJAR_GUEST: await tempDir(t) } });
  assert.equal(status, 125);
  assert.match(stderr, /belljar guest build/);
});

test("a workload that takes all memory is killed, not the agent, and the status says so", async (t) => {
  const script = "echo before; tail /dev/zero; echo status $?";
  const { status, stdout, stderr } = await runCli(t, ["run", "-m", "160m", "busybox", "sh", "-c", script]);
  assert.deepEqual({ status, stdout: stdout.toString() }, { status: 0, stdout: "before\nstatus 137\n" }, stderr);
});

test("a SIGINT at any stage ends the command in time and leaves nothing", async (t) => {
  for (const delayMs of [0, 300, 1000, 2000, 3000, 4500, 7000, 9000]) {
    const cli = startCli(t, ["run", "busybox", "sleep", "600"]);
    await cli.afterMs(delayMs);
    cli.kill("SIGINT");
    const { status, signal } = await cli.done;
    // Before Node runs our code the signal ends it, as it does any program; later it must be ours to answer.
    assert.equal(
      (delayMs < 1000 && signal === "SIGINT") || status === 130,
      true,
      `after ${delayMs} ms: status ${status}, signal ${signal}`,
    );
  }
});

test("two SIGINTs during start end it as well as one", async (t) => {
  const cli = startCli(t, ["run", "busybox", "sleep", "600"]);
  await cli.afterMs(1000);
  cli.kill("SIGINT");
  cli.kill("SIGINT");
  assert.equal((await cli.done).status, 130);
});

test("a full disk during import is named, and nothing is left", async (t) => {
  const { mountTmpfs } = await import("../support/tmpfs.ts");
  const root = await mountTmpfs(t, 8);
  const source = join(await tempDir(t), "rootfs");
  await mkdir(source);
  const big = await open(join(source, "big"), "w");
  await big.writeFile(Buffer.alloc(20 * 1024 * 1024, 7));
  await big.close();
  const { status, stderr } = await runCli(t, ["image", "import", source, "big"], { env: { BELLJAR_ROOT: root } });
  assert.equal(status, 125);
  assert.match(stderr, /no space|no room|full/i);
  for (const part of ["staging", "layers", "blobs/sha256"]) {
    assert.deepEqual(await readdir(join(root, "images", part)), [], part);
  }
  const list = await runCli(t, ["image", "ls", "--json"], { env: { BELLJAR_ROOT: root } });
  assert.equal(list.stdout.toString().includes("big"), false);
});

test("what killed commands and killed daemons leave is found by the next daemon, and can be deleted", async (t) => {
  const environment = cliEnvironment(t);
  for (let round = 0; round < 10; round += 1) {
    const cli = startCli(t, ["run", "busybox", "sh", "-c", "echo up; sleep 600"]);
    await cli.afterMs(Math.random() * 8000);
    cli.kill("SIGKILL");
    await cli.done;
    // The client alone dies in every other round: its sandbox lives on, or was being made and is undone.
    if (round % 2 === 1) await killDaemon(t);
  }
  const pruned = await runCli(t, ["prune"]);
  assert.equal(pruned.status, 0, pruned.stderr);
  const listed = await runCli(t, ["ps", "-a", "--json"]);
  const lines = listed.stdout.toString().split("\n").filter(Boolean);
  const infos = lines.map((line): { id: string; state: string; problem?: string } => JSON.parse(line));
  for (const { state, problem } of infos) {
    assert.equal(problem, undefined);
    assert.match(state, /^(running|stopped)$/);
  }
  if (infos.length > 0) {
    const removed = await runCli(t, ["rm", "-f", ...infos.map(({ id }) => id)]);
    assert.equal(removed.status, 0, removed.stderr);
  }
  assert.equal((await runCli(t, ["daemon", "stop"])).status, 0);
  const paths = resolvePaths({}, environment, process.getuid?.() ?? 0);
  assert.deepEqual(await readdir(join(paths.root, "sandboxes")).catch(() => []), []);
  assert.deepEqual(await readdir(paths.run).catch(() => []), []);
  await rm(paths.root, { recursive: true, force: true });
});

async function killDaemon(t: TestScope): Promise<void> {
  const status = await runCli(t, ["daemon", "status", "--json"]);
  const { pid }: { pid?: number } = JSON.parse(status.stdout.toString());
  if (pid !== undefined) process.kill(pid, "SIGKILL");
}
