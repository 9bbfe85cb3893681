/**
 * Builds the real guest image. Slow: about 20 s for each of the builds on two cores. Needs apt's lists, and a network where
 * the packages are not in apt's reach otherwise.
 */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runTool, silentLog } from "../../src/base/index.ts";
import { GUEST_FILES, openGuestImages } from "../../src/guest/index.ts";

const MEGABYTE = 1_000_000;

test("the guest image: same inputs same bytes, small enough, not built again, cancelled without a trace", async (t) => {
  const scratch = await mkdtemp(join(tmpdir(), "belljar-guest-build-"));
  t.after(() => rm(scratch, { recursive: true, force: true }));
  const dirs = [join(scratch, "a"), join(scratch, "b")] as const;
  const [a, b] = dirs.map((dir) => openGuestImages({ dir, log: silentLog }));
  assert.ok(a !== undefined && b !== undefined);

  await t.test("a build that is cancelled at any of its steps leaves no image and no temporary directory", async () => {
    const steps: string[] = [];
    // The last step that a build reaches before it is cancelled moves on by one each time.
    for (let last = 1; last <= 4; last += 1) {
      const controller = new AbortController();
      let seen = 0;
      const progress = (step: string): void => {
        steps.push(step);
        seen += 1;
        if (seen === last) controller.abort();
      };
      await assert.rejects(a.build({ signal: controller.signal, progress }), { reason: "CANCELLED" });
      assert.deepEqual((await readdir(dirs[0])).sort(), ["build.lock", "cache"], `after ${steps.at(-1)}`);
    }
    assert.ok(new Set(steps).size >= 4, `only these steps were seen: ${steps.join(", ")}`);
  });

  const first = await a.build();
  await t.test("two builds in two places give the same bytes", async () => {
    // The second place gets the packages from the first: what is compared is the building.
    await mkdir(dirs[1]);
    await runTool("cp", ["-r", join(dirs[0], "cache"), dirs[1]]);
    const second = await b.build();
    assert.equal(second.digest, first.digest);
    for (const name of Object.values(GUEST_FILES)) {
      const [one, other] = await Promise.all([readFile(join(first.dir, name)), readFile(join(second.dir, name))]);
      assert.ok(one.equals(other), `${name} differs`);
    }
  });

  await t.test("kernel, initramfs and root are at most 120 MB", async () => {
    const sizes = await Promise.all([first.kernelPath, first.initrdPath, first.rootPath].map((path) => stat(path)));
    const total = sizes.reduce((sum, { size }) => sum + size, 0);
    assert.ok(total <= 120 * MEGABYTE, `they are ${total} bytes`);
  });

  await t.test(
    "unchanged inputs are not built again; forced, the same image comes out and stays untouched",
    async () => {
      const { ino } = await stat(first.rootPath);
      const steps: string[] = [];
      assert.equal((await a.build({ progress: (step) => steps.push(step) })).digest, first.digest);
      assert.equal(steps.length, 1, steps.join(", "));
      assert.equal((await a.build({ force: true })).digest, first.digest);
      assert.equal((await stat(first.rootPath)).ino, ino);
      await a.verify();
    },
  );

  await t.test("the built-in images hold a working busybox and a working Node", async () => {
    for (const [name, command, expected] of [
      [GUEST_FILES.busybox, ["busybox", "sh", "-c", "ls -d /tmp /root /home && id -un"], "/home\n/root\n/tmp\nroot\n"],
      [GUEST_FILES.node, ["node", "-e", "console.log(process.version)"], `v${first.manifest.inputs.node.version}\n`],
    ] as const) {
      const root = join(scratch, `root-${name}`);
      await mkdir(root);
      await runTool("tar", ["--extract", "--zstd", "--file", join(first.dir, name), "--directory", root]);
      const ran = await runTool("chroot", [root, ...command], { env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" } });
      assert.equal(ran.stdout.toString(), expected);
    }
  });
});
