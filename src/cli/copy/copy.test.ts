/** Copies to and from this host, with trees in memory that play a container nobody trusts. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { extract, pack } from "tar-stream";
import { type TestScope, tempDir, test } from "../../../test/support/harness.ts";
import { BelljarError } from "../../base/index.ts";
import type { DirectoryEntry, FileAttributes, FileInfo } from "../../sdk/index.ts";
import { copyTree, resolveDestination } from "./copy-tree.ts";
import { parseEndpoint } from "./endpoint.ts";
import { HostDestination } from "./host-destination.ts";
import { hostSource } from "./host-source.ts";
import { readTar } from "./tar-in.ts";
import { writeTar } from "./tar-out.ts";
import { type CopyOptions, CopyReport, type Destination, type Source } from "./tree.ts";

const options: CopyOptions = {
  archive: false,
  keepSpecialBits: false,
  signal: new AbortController().signal,
  report: new CopyReport(() => {}),
};

function info(type: FileInfo["type"], more: Partial<FileInfo> = {}): FileInfo {
  return { type, mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, modifiedAtMs: 1_000, ...more };
}

/** A directory with these entries; files have their names as contents. */
function source(entries: readonly DirectoryEntry[], read?: Source["read"]): Source {
  return {
    stat: async () => info("directory", { mode: 0o755 }),
    list: async (path) => (path === "/tree" ? entries : []),
    read:
      read ??
      async function* (path) {
        yield Buffer.from(path);
      },
  };
}

async function fetch(tree: Source, final: string): Promise<void> {
  await using destination = await HostDestination.open(final);
  const from = { tree, path: "/tree", info: info("directory", { mode: 0o755 }) };
  await copyTree(from, { tree: destination, path: destination.staged }, options);
  await destination.commit();
}

async function prepare(t: TestScope): Promise<string> {
  const dir = await tempDir(t);
  await mkdir(join(dir, "outside"));
  await writeFile(join(dir, "victim"), "as it was");
  return dir;
}

test("a tree comes whole, with modes and times, and without setuid", async (t) => {
  const dir = await prepare(t);
  const entries = [
    { name: "dir", info: info("directory", { mode: 0o500 }) },
    { name: "file", info: info("file", { mode: 0o4750 }) },
    { name: "link", info: info("link", { linkTarget: join(dir, "victim") }) },
    { name: "pipe", info: info("fifo") },
  ];
  await fetch(source(entries), join(dir, "new"));
  assert.deepEqual((await readdir(join(dir, "new"))).sort(), ["dir", "file", "link"]);
  const file = await stat(join(dir, "new/file"));
  assert.deepEqual([file.mode & 0o7777, file.mtimeMs], [0o750, 1_000]);
  assert.equal((await stat(join(dir, "new/dir"))).mode & 0o7777, 0o500);
  assert.equal(await readlink(join(dir, "new/link")), join(dir, "victim"));
  // Into what is there, a link where a file comes is replaced and not followed.
  await fetch(source([{ name: "link", info: info("file") }]), join(dir, "new"));
  assert.equal(await readFile(join(dir, "new/link"), "utf8"), "/tree/link");
  assert.equal(await readFile(join(dir, "victim"), "utf8"), "as it was");
  assert.deepEqual((await readdir(dir)).sort(), ["new", "outside", "victim"]);
});

test("what stands in the way, breaks off or comes twice leaves everything as it was", async (t) => {
  const dir = await prepare(t);
  await mkdir(join(dir, "there/b"), { recursive: true });
  await symlink(join(dir, "outside"), join(dir, "there/c"));
  const a = { name: "a", info: info("file") };
  const cases: readonly (readonly [Source, string])[] = [
    [source([a, { name: "b", info: info("file") }]), "IS_A_DIRECTORY"],
    [source([a, { name: "c", info: info("directory", { mode: 0o755 }) }]), "NOT_A_DIRECTORY"],
    [source([a, { name: "a", info: info("link", { linkTarget: "/etc" }) }]), "AGENT_PROTOCOL"],
    [
      source([a], async function* () {
        yield Buffer.from("half");
        throw new BelljarError("VMM_DIED", "gone");
      }),
      "VMM_DIED",
    ],
  ];
  for (const [tree, reason] of cases) await assert.rejects(fetch(tree, join(dir, "there")), { reason });
  assert.deepEqual((await readdir(join(dir, "there"))).sort(), ["b", "c"]);
  assert.deepEqual(await readdir(join(dir, "outside")), []);
});

test("an archive is unpacked where it was told to be, and nowhere else", async () => {
  const tree = new MemoryTree();
  const archive = pack();
  archive.entry({ name: "dir/", type: "directory", mode: 0o700, mtime: new Date(5_000), uid: 1, gid: 2 });
  archive.entry({ name: "/dir/./file", mode: 0o4755, uid: 3, gid: 4 }, "text");
  archive.entry({ name: "dir/hard", type: "link", linkname: "dir/file" });
  archive.entry({ name: "dir/soft", type: "symlink", linkname: "/etc/passwd" });
  archive.entry({ name: "dir/pipe", type: "fifo" });
  archive.entry({ name: "below/it/file" }, "more");
  archive.finalize();
  const report = new CopyReport(() => {});
  await readTar(bytesOf(archive), { tree, path: "/to" }, { ...options, archive: true, keepSpecialBits: true, report });
  assert.deepEqual(Object.fromEntries(tree.made), {
    "/to/dir": "directory 700 1:2",
    "/to/dir/file": "file 4755 3:4 text",
    "/to/dir/hard": "file 644 0:0 text",
    "/to/dir/soft": "link /etc/passwd",
    "/to/below": "directory 755 undefined",
    "/to/below/it": "directory 755 undefined",
    "/to/below/it/file": "file 644 0:0 more",
  });
  assert.deepEqual(report.skipped, ["dir/pipe"]);
  for (const name of ["../out", "dir/../../out", ".."]) {
    const hostile = pack();
    hostile.entry({ name }, "x");
    hostile.finalize();
    await assert.rejects(readTar(bytesOf(hostile), { tree, path: "/to" }, options), { reason: "PATH_INVALID" });
  }
  const noise = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.alloc(2_000, 0x41);
  };
  await assert.rejects(readTar(noise(), { tree, path: "/to" }, options), { reason: "INVALID_ARGUMENT" });
});

/** What was made, by its path. */
class MemoryTree implements Source, Destination {
  readonly made = new Map<string, string>();

  async stat(): Promise<FileInfo> {
    return info("directory");
  }

  async list(): Promise<readonly DirectoryEntry[]> {
    return [];
  }

  async *read(path: string): AsyncGenerator<Uint8Array> {
    yield Buffer.from(this.made.get(path)?.split(" ").at(-1) ?? "");
  }

  async makeDirectory(path: string): Promise<boolean> {
    const isNew = !this.made.has(path);
    this.made.set(path, "directory");
    return isNew;
  }

  async write(path: string, data: AsyncIterable<Uint8Array>, { mode, user }: FileAttributes): Promise<void> {
    const pieces: Uint8Array[] = [];
    for await (const piece of data) pieces.push(piece);
    this.made.set(path, `file ${mode?.toString(8)} ${user} ${Buffer.concat(pieces)}`);
  }

  async makeLink(path: string, target: string): Promise<void> {
    this.made.set(path, `link ${target}`);
  }

  async finishDirectory(path: string, { mode, user }: FileAttributes): Promise<void> {
    this.made.set(path, `directory ${mode?.toString(8)} ${user}`);
  }
}

async function* bytesOf(archive: AsyncIterable<unknown>): AsyncGenerator<Uint8Array> {
  for await (const piece of archive) if (piece instanceof Uint8Array) yield piece;
}

test("docker's rules say where a copy goes", async () => {
  const kinds: Readonly<Record<string, FileInfo["type"]>> = { dir: "directory", "dir/": "directory", file: "file" };
  const find = async (path: string): Promise<FileInfo> => {
    const type = kinds[path];
    if (type === undefined) throw new BelljarError("FILE_NOT_FOUND", path);
    return info(type);
  };
  const goes = (path: string, type: FileInfo["type"], to: string): Promise<string> =>
    resolveDestination({ path, info: info(type) }, to, find);
  assert.equal(await goes("/a/one", "file", "new"), "new");
  assert.equal(await goes("/a/one", "file", "file"), "file");
  assert.equal(await goes("/a/one", "file", "dir"), "dir/one");
  assert.equal(await goes("/a/one/", "directory", "dir/"), "dir/one");
  assert.equal(await goes("/a/one/.", "directory", "dir"), "dir");
  assert.equal(await goes("/", "directory", "dir"), "dir");
  assert.equal(await goes("/a/one", "directory", "new"), "new");
  await assert.rejects(goes("/a/one", "file", "new/"), { reason: "NOT_A_DIRECTORY" });
  await assert.rejects(goes("/a/one", "directory", "file"), { reason: "NOT_A_DIRECTORY" });
});

test("which side is which", async () => {
  assert.deepEqual(parseEndpoint("box:/a:b"), { kind: "container", target: "box", path: "/a:b" });
  assert.deepEqual(parseEndpoint("box/c1:x"), { kind: "container", target: "box/c1", path: "x" });
  assert.deepEqual(parseEndpoint("box:"), { kind: "container", target: "box", path: "/" });
  for (const path of ["/a:b", "./a:b", "../a:b", "a", ":a"])
    assert.deepEqual(parseEndpoint(path), { kind: "host", path });
  assert.deepEqual(parseEndpoint("-"), { kind: "stream" });
  assert.throws(() => parseEndpoint(""), { reason: "INVALID_ARGUMENT" });
});

test("a tree of this host becomes an archive, and a file that shrinks meanwhile an error", async (t) => {
  const dir = await prepare(t);
  await mkdir(join(dir, "tree/sub"), { recursive: true });
  await writeFile(join(dir, "tree/sub/large"), Buffer.alloc(1_000_000, 7));
  await writeFile(join(dir, "tree/nothing"), "");
  await symlink("sub", join(dir, "tree/link"));
  const path = join(dir, "tree");
  const archive = extract();
  const found: unknown[] = [];
  const reading = (async () => {
    for await (const entry of archive) {
      found.push([entry.header.type, entry.header.name, entry.header.size, entry.header.linkname]);
      entry.resume();
    }
  })();
  const from = { tree: hostSource, path, name: "tree", info: await hostSource.stat(path, false) };
  await writeTar(from, options, async (piece) => {
    archive.write(piece);
    return true;
  });
  archive.end(null);
  await reading;
  assert.deepEqual(found, [
    ["directory", "tree/", 0, null],
    ["symlink", "tree/link", 0, "sub"],
    ["file", "tree/nothing", 0, null],
    ["directory", "tree/sub/", 0, null],
    ["file", "tree/sub/large", 1_000_000, null],
  ]);
  const large = { ...from, path: join(path, "sub/large"), name: "large", info: info("file", { sizeBytes: 2_000_000 }) };
  await assert.rejects(
    writeTar(large, options, async () => true),
    { reason: "FILE_BUSY" },
  );
  // A reader that goes away ends it.
  await writeTar(from, options, async () => false);
});
