/** Files of a container from outside, with a root file system that is a directory of this host, and nobody to trust in it. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { AgentClient } from "../src/agent-client/index.ts";
import { fileLimits } from "../src/base/limits.ts";
import { FileEventKind, FileType } from "../src/protocol/index.ts";
import { clientOf, createContainer } from "./testing/calls.ts";
import { startHostAgent } from "./testing/host-agent.ts";

interface Scene {
  readonly client: AgentClient;
  readonly root: string;
  /** Beside the root; nothing may read or change it. */
  readonly outside: string;
}

const containerId = "c1";

async function scene(t: TestContext): Promise<Scene> {
  const agent = await startHostAgent();
  const client = clientOf(agent);
  t.after(async () => {
    await client.call("removeContainer", { containerId });
    await client.close();
    await agent[Symbol.asyncDispose]();
  });
  await createContainer(client, containerId, ["true"]);
  const root = join(agent.dir, "containers", containerId, "rootfs");
  const outside = join(agent.dir, "containers", containerId, "outside");
  await mkdir(outside);
  await writeFile(join(outside, "secret"), "outside");
  return { client, root, outside };
}

async function put({ client }: Scene, path: string, data: Uint8Array | string, id = "w1"): Promise<void> {
  const bytes = Buffer.from(data);
  await client.call("openFile", { containerId, fileId: id, path, write: true });
  for (let offset = 0; offset < bytes.length; offset += fileLimits.chunkMaxBytes) {
    const piece = bytes.subarray(offset, offset + fileLimits.chunkMaxBytes);
    await client.call("writeFile", { containerId, fileId: id, offset: BigInt(offset), data: piece });
  }
  await client.call("commitFile", { containerId, fileId: id, size: BigInt(bytes.length) });
  await client.call("closeFile", { containerId, fileId: id });
}

async function get({ client }: Scene, path: string, id = "r1"): Promise<Buffer> {
  await client.call("openFile", { containerId, fileId: id, path });
  try {
    const pieces: Uint8Array[] = [];
    for (let offset = 0; ; offset += fileLimits.chunkMaxBytes) {
      const maxBytes = fileLimits.chunkMaxBytes;
      const { data, end } = await client.call("readFile", {
        containerId,
        fileId: id,
        offset: BigInt(offset),
        maxBytes,
      });
      pieces.push(data);
      if (end) return Buffer.concat(pieces);
    }
  } finally {
    await client.call("closeFile", { containerId, fileId: id });
  }
}

const rejects = (call: Promise<unknown>, reason: string): Promise<void> => assert.rejects(call, { reason });

test("what is written is read again, with its mode, and replaces a file at once", async (t) => {
  const one = await scene(t);
  const data = randomBytes(1_000_000);
  await one.client.call("makeDirectory", {
    containerId,
    path: "/etc/deep/er",
    parents: true,
    attributes: { mode: 0o750 },
  });
  assert.equal((await stat(join(one.root, "etc/deep/er"))).mode & 0o7777, 0o750);
  await put(one, "/etc/deep/er/file", data);
  assert.deepEqual(await get(one, "etc/deep/er/file"), data);
  await chmod(join(one.root, "etc/deep/er/file"), 0o4711);
  await put(one, "/etc/deep/er/file", "");
  const { info } = await one.client.call("statFile", { containerId, path: "/etc/deep/er/file" });
  assert.deepEqual([info?.type, info?.mode, info?.size], [FileType.REGULAR, 0o4711, 0n]);
  assert.deepEqual(await readdir(join(one.root, "etc/deep/er")), ["file"]);
});

test("links lead nowhere but into the container's root", async (t) => {
  const one = await scene(t);
  await mkdir(join(one.root, "dir"));
  await writeFile(join(one.root, "inside"), "inside");
  const links = {
    absolute: "/inside",
    up: "../../../../../../inside",
    proc: "/proc/self/root/inside",
    out: "../outside/secret",
    hostRoot: one.outside,
    loop: "loop",
    first: "second",
    second: "first",
  };
  for (const [name, target] of Object.entries(links)) await symlink(target, join(one.root, "dir", name));
  assert.equal((await get(one, "/dir/absolute")).toString(), "inside");
  assert.equal((await get(one, "/dir/up")).toString(), "inside");
  assert.equal((await get(one, "../../../dir/../inside")).toString(), "inside");
  for (const name of ["proc", "out", "hostRoot/secret"]) await rejects(get(one, `/dir/${name}`), "FILE_NOT_FOUND");
  for (const name of ["loop", "first"]) await rejects(get(one, `/dir/${name}`), "PATH_INVALID");
  await rejects(put(one, "/dir/hostRoot/new", "x"), "FILE_NOT_FOUND");
  await one.client.call("removeFile", { containerId, path: "/dir/hostRoot" });
  await one.client.call("removeFile", { containerId, path: "/dir", recursive: true });
  await rejects(one.client.call("removeFile", { containerId, path: "/", recursive: true }), "PATH_INVALID");
  await rejects(get(one, `/${"a/".repeat(3000)}`), "PATH_INVALID");
  await rejects(get(one, "/a\0b"), "PATH_INVALID");
  assert.equal(await readFile(join(one.outside, "secret"), "utf8"), "outside");
  assert.deepEqual(await readdir(one.outside), ["secret"]);
});

test("a link that is swapped in while the agent walks never leads out", async (t) => {
  const one = await scene(t);
  const [swapped, real, link] = ["dir", "real", "link"].map((name) => join(one.root, name));
  assert.ok(swapped !== undefined && real !== undefined && link !== undefined);
  await mkdir(real);
  await writeFile(join(real, "secret"), "inside");
  await symlink(one.outside, link);
  let going = true;
  const swapping = (async () => {
    while (going) {
      await rename(real, swapped);
      await turn();
      await rename(swapped, real);
      await rename(link, swapped);
      await turn();
      await rename(swapped, link);
    }
  })();
  const outcomes = new Set<string>();
  for (let round = 0; round < 300; round += 1) {
    const read = await get(one, "/dir/secret", `r${round}`).then(String, (error) => error.reason);
    outcomes.add(read);
    const written = await put(one, "/dir/new", "x", `w${round}`).then(
      () => "written",
      (error) => error.reason,
    );
    outcomes.add(written);
    await one.client.call("removeFile", { containerId, path: "/dir/new" }).catch(() => {});
  }
  going = false;
  await swapping;
  t.diagnostic([...outcomes].join(" "));
  for (const outcome of outcomes) {
    assert.ok(["inside", "written", "FILE_NOT_FOUND", "NOT_A_DIRECTORY", "PATH_INVALID"].includes(outcome), outcome);
  }
  assert.deepEqual(await readdir(one.outside), ["secret"]);
});

test("what is no regular file is never opened", async (t) => {
  const one = await scene(t);
  execFileSync("mkfifo", [join(one.root, "fifo")]);
  execFileSync("mknod", [join(one.root, "zero"), "c", "1", "5"]);
  await rejects(get(one, "/fifo"), "NOT_A_FILE");
  await rejects(get(one, "/zero"), "NOT_A_FILE");
  await rejects(put(one, "/zero", "x"), "NOT_A_FILE");
  await rejects(get(one, "/"), "IS_A_DIRECTORY");
  await rejects(put(one, "/", "x"), "IS_A_DIRECTORY");
  const { entries } = await one.client.call("listDirectory", { containerId, path: "/", maxEntries: 10 });
  assert.deepEqual(
    entries.map(({ name, info }) => [name, info?.type]),
    [
      ["fifo", FileType.FIFO],
      ["zero", FileType.CHARACTER_DEVICE],
    ],
  );
});

test("file systems of the kernel's own are not entered", async (t) => {
  const one = await scene(t);
  await mkdir(join(one.root, "proc"));
  execFileSync("mount", ["-t", "proc", "proc", join(one.root, "proc")]);
  try {
    for (const path of ["/proc", "/proc/version", "/proc/self/root/secret", "/proc/1/environ"]) {
      const reading = await get(one, path).catch((error) => error.reason);
      assert.ok(["PATH_INVALID", "FILE_NOT_FOUND", "IS_A_DIRECTORY"].includes(reading), `${path}: ${reading}`);
    }
    await rejects(put(one, "/proc/new", "x"), "PATH_INVALID");
  } finally {
    execFileSync("umount", [join(one.root, "proc")]);
  }
});

test("a tree with something mounted in it is not removed through the mount", async (t) => {
  const one = await scene(t);
  await mkdir(join(one.root, "a/b/mounted"), { recursive: true });
  execFileSync("mount", ["-t", "tmpfs", "tmpfs", join(one.root, "a/b/mounted")]);
  try {
    await writeFile(join(one.root, "a/b/mounted/kept"), "kept");
    await rejects(one.client.call("removeFile", { containerId, path: "/a", recursive: true }), "FILE_BUSY");
    assert.equal(await readFile(join(one.root, "a/b/mounted/kept"), "utf8"), "kept");
  } finally {
    execFileSync("umount", [join(one.root, "a/b/mounted")]);
  }
  await one.client.call("removeFile", { containerId, path: "/a", recursive: true });
  assert.deepEqual(await readdir(one.root), []);
});

test("a large directory comes page by page, each name once", async (t) => {
  const one = await scene(t);
  const names = Array.from({ length: 2_500 }, (_, index) => `file ${index} é`);
  for (const name of names) await writeFile(join(one.root, name), "");
  await writeFile(Buffer.concat([Buffer.from(`${one.root}/`), Buffer.from([0xff, 0xfe])]), "");
  await mkdir(join(one.root, "links"));
  for (let index = 0; index < 1_100; index += 1) await symlink("x".repeat(4_000), join(one.root, "links", `${index}`));
  const linksPage = await one.client.call("listDirectory", { containerId, path: "/links", maxEntries: 1_024 });
  assert.ok(linksPage.more && linksPage.entries.length > 100);
  await rm(join(one.root, "links"), { recursive: true });
  const seen: string[] = [];
  for (let after = "", more = true; more; after = seen.at(-1) ?? "") {
    const page = await one.client.call("listDirectory", { containerId, path: "/", after, maxEntries: 1_000_000 });
    assert.ok(page.entries.length <= fileLimits.pageMaxEntries);
    assert.equal(page.unnameable, 1);
    seen.push(...page.entries.map(({ name }) => name));
    more = page.more;
  }
  assert.deepEqual(
    seen,
    names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
  );
});

test("writing goes on after the link was lost, and repeated calls do no harm", async (t) => {
  const one = await scene(t);
  const data = randomBytes(3 * fileLimits.chunkMaxBytes);
  const open = { containerId, fileId: "w1", path: "/file", write: true };
  await one.client.call("openFile", open);
  const write = (index: number): Promise<unknown> => {
    const offset = index * fileLimits.chunkMaxBytes;
    const piece = data.subarray(offset, offset + fileLimits.chunkMaxBytes);
    return one.client.call("writeFile", { containerId, fileId: "w1", offset: BigInt(offset), data: piece });
  };
  await write(2);
  await rejects(one.client.call("commitFile", { containerId, fileId: "w1", size: 1n }), "INVALID_ARGUMENT");
  await one.client.call("openFile", open);
  for (const index of [0, 0, 1, 2]) await write(index);
  const commit = { containerId, fileId: "w1", size: BigInt(data.length), attributes: { mode: 0o600, user: "7:8" } };
  await one.client.call("commitFile", commit);
  await one.client.call("commitFile", commit);
  await one.client.call("closeFile", { containerId, fileId: "w1" });
  await one.client.call("closeFile", { containerId, fileId: "w1" });
  const { uid, gid, mode } = await stat(join(one.root, "file"));
  assert.deepEqual([uid, gid, mode & 0o7777], [7, 8, 0o600]);
  assert.deepEqual(await readFile(join(one.root, "file")), data);
  await rejects(write(0), "FILE_NOT_FOUND");
});

test("what is not committed leaves nothing, and a container is removed with files open", async (t) => {
  const one = await scene(t);
  await writeFile(join(one.root, "file"), "as it was");
  await one.client.call("openFile", { containerId, fileId: "w1", path: "/file", write: true });
  await one.client.call("writeFile", { containerId, fileId: "w1", data: Buffer.from("new") });
  await one.client.call("closeFile", { containerId, fileId: "w1" });
  assert.deepEqual(await readdir(one.root), ["file"]);
  assert.equal(await readFile(join(one.root, "file"), "utf8"), "as it was");
  await one.client.call("openFile", { containerId, fileId: "w2", path: "/other", write: true });
  await one.client.call("openFile", { containerId, fileId: "r1", path: "/file" });
  await one.client.call("watchFile", { containerId, watchId: "v1", path: "/", waitMs: 0 });
  await one.client.call("removeContainer", { containerId });
  const open = await Promise.all(
    (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")),
  );
  assert.deepEqual(
    open.filter((path) => path.includes("rootfs")),
    [],
  );
});

test("a full disk is said, and leaves the file as it was", async (t) => {
  const one = await scene(t);
  await mkdir(join(one.root, "small"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", join(one.root, "small")]);
  try {
    await put(one, "/small/file", "as it was");
    await rejects(put(one, "/small/file", Buffer.alloc(2 * 1024 * 1024, 1), "w2"), "CONTAINER_DISK_FULL");
    await one.client.call("closeFile", { containerId, fileId: "w2" });
    assert.equal((await get(one, "/small/file")).toString(), "as it was");
    assert.deepEqual(await readdir(join(one.root, "small")), ["file"]);
  } finally {
    await one.client.call("removeContainer", { containerId }).catch(() => {});
    execFileSync("umount", ["-l", join(one.root, "small")]);
  }
});

test("links, attributes and renaming", async (t) => {
  const one = await scene(t);
  const attributes = { user: "5:6", modifiedMs: 1_234_567_890_123 };
  await one.client.call("makeLink", { containerId, path: "/link", target: "/nowhere", attributes });
  await one.client.call("makeLink", { containerId, path: "/link", target: "/elsewhere", attributes });
  const { info } = await one.client.call("statFile", { containerId, path: "/link" });
  assert.deepEqual([info?.type, info?.linkTarget, info?.uid, info?.gid], [FileType.LINK, "/elsewhere", 5, 6]);
  assert.equal(info?.modifiedMs, 1_234_567_890_123);
  await put(one, "/link", "through the link");
  assert.equal(await readFile(join(one.root, "elsewhere"), "utf8"), "through the link");
  await one.client.call("setFileAttributes", {
    containerId,
    path: "/elsewhere",
    attributes: { mode: 0o1777, ...attributes },
  });
  await one.client.call("renameFile", { containerId, path: "/elsewhere", newPath: "/there" });
  const there = await one.client.call("statFile", { containerId, path: "/there" });
  assert.deepEqual([there.info?.mode, there.info?.uid, there.info?.modifiedMs], [0o1777, 5, 1_234_567_890_123]);
  await rejects(one.client.call("renameFile", { containerId, path: "/absent", newPath: "/x" }), "FILE_NOT_FOUND");
  await mkdir(join(one.root, "full/dir"), { recursive: true });
  await rejects(one.client.call("removeFile", { containerId, path: "/full" }), "DIRECTORY_NOT_EMPTY");
  await rejects(one.client.call("makeDirectory", { containerId, path: "/full" }), "FILE_EXISTS");
  await rejects(one.client.call("makeDirectory", { containerId, path: "/there/x", parents: true }), "NOT_A_DIRECTORY");
});

test("a watch tells what happens, keeps what was not acknowledged, and says when events are missing", async (t) => {
  const one = await scene(t);
  await mkdir(join(one.root, "dir"));
  const next = async (after: bigint): Promise<readonly (readonly [bigint, FileEventKind, string])[]> => {
    const request = { containerId, watchId: "v1", path: "/dir", afterSequence: after, waitMs: 5_000 };
    const { events } = await one.client.call("watchFile", request);
    return events.map(({ sequence, kind, name }) => [sequence, kind, name]);
  };
  await one.client.call("watchFile", { containerId, watchId: "v1", path: "/dir", waitMs: 0 });
  const waiting = next(0n);
  await writeFile(join(one.root, "dir/new"), "");
  assert.deepEqual((await waiting)[0], [1n, FileEventKind.CREATED, "new"]);
  await writeFile(join(one.root, "alone"), "");
  const alone = async (after: bigint): Promise<unknown> => {
    const request = { containerId, watchId: "v2", path: "/alone", afterSequence: after, waitMs: 5_000 };
    return (await one.client.call("watchFile", request)).events.map(({ kind, name }) => [kind, name]);
  };
  await one.client.call("watchFile", { containerId, watchId: "v2", path: "/alone", waitMs: 0 });
  await chmod(join(one.root, "alone"), 0o600);
  assert.deepEqual(await alone(0n), [[FileEventKind.CHANGED, ""]]);
  await rm(join(one.root, "alone"));
  assert.deepEqual(await alone(1n), [[FileEventKind.REMOVED, ""]]);
  await rm(join(one.root, "dir/new"));
  let seen = await next(0n);
  while (seen.at(-1)?.[1] !== FileEventKind.REMOVED) seen = await next(0n);
  assert.equal(seen[0]?.[0], 1n);
  const last = seen.at(-1)?.[0] ?? 0n;
  for (let index = 0; index < fileLimits.watchEventsMax; index += 1) {
    await writeFile(join(one.root, "dir", `f${index}`), "x");
  }
  let many = await next(last);
  while (!many.some(([, , name]) => name === `f${fileLimits.watchEventsMax - 1}`)) many = await next(last);
  assert.ok(many.length <= fileLimits.watchEventsMax);
  assert.equal(many[0]?.[1], FileEventKind.OVERFLOW);
  await rm(join(one.root, "dir"), { recursive: true });
  let end = await next(many.at(-1)?.[0] ?? 0n);
  while (end.at(-1)?.[2] !== "") end = await next(end.at(-1)?.[0] ?? 0n);
  assert.equal(end.at(-1)?.[1], FileEventKind.REMOVED);
});
