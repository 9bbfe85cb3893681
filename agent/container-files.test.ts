/** Whatever stands where a small file should be, the agent reads inside the container's root, and returns. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readContainerFile } from "./container-files.ts";

test("links stay inside, and what is no regular file is nothing", async () => {
  const dir = await mkdtemp(join(tmpdir(), "belljar-files-"));
  try {
    const root = join(dir, "root");
    await mkdir(join(root, "etc"), { recursive: true });
    await mkdir(join(root, "usr/etc"), { recursive: true });
    await writeFile(join(dir, "secret"), "outside");
    await writeFile(join(root, "usr/etc/passwd"), "inside");
    await writeFile(join(root, "secret"), "inside too");
    const links = {
      absolute: "/usr/etc/passwd",
      relative: "../usr/etc/passwd",
      out: "../../../../secret",
      through: "/etc/absolute",
      loop: "/etc/loop",
      dangling: "/nowhere",
    };
    for (const [name, target] of Object.entries(links)) await symlink(target, join(root, "etc", name));
    await symlink("/usr/etc", join(root, "etc/dir"));
    execFileSync("mkfifo", [join(root, "etc/fifo")]);
    await symlink("/dev/zero", join(root, "etc/zero"));
    await writeFile(join(root, "etc/large"), Buffer.alloc(3 * 1024 * 1024, 0x61));
    const read = (name: string): Promise<string> => readContainerFile(root, `/etc/${name}`);
    assert.equal(await read("absolute"), "inside");
    assert.equal(await read("relative"), "inside");
    assert.equal(await read("through"), "inside");
    assert.equal(await read("dir/passwd"), "inside");
    // Above its root a container finds its root.
    assert.equal(await read("out"), "inside too");
    for (const name of ["loop", "dangling", "fifo", "zero", "dir", "absent", "absolute/x"]) {
      assert.equal(await read(name), "", name);
    }
    assert.equal((await read("large")).length, 1024 * 1024);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
