import assert from "node:assert/strict";
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { BelljarError, runTool } from "../base/index.ts";
import {
  archiveOf,
  asRoot,
  attributesOf,
  describeTree,
  type FixtureEntry,
  layerOf,
  mounted,
  scratch,
} from "./layer-fixture.ts";
import { shownName } from "./tar-entry.ts";

/** Everything that a tree can have, made by shell commands. */
const MAKE_TREE = `
set -e; umask 022
mkdir -p empty deep/$(printf 'd%.0s' $(seq 150))/$(printf 'e%.0s' $(seq 200)) sticky usr/bin
echo long > deep/$(printf 'd%.0s' $(seq 150))/$(printf 'e%.0s' $(seq 200))/$(printf 'f%.0s' $(seq 250))
chmod 1777 sticky; echo suid > suid; chmod 4755 suid; echo sgid > sgid; chmod 2711 sgid; : > none; chmod 000 none
printf bytes > "$(printf 'name-\\377-\\376')"; printf u > 'ünïcode-☃'; printf n > 'new
line'; echo dash > -dash; echo star > 'a*?[b]'; echo back > 'back\\\\slash\\\\101'
echo data > one; ln one two; mkdir sub; ln one sub/three
ln -s /etc/passwd absolute; ln -s ../../../outside upward; ln -s usr/bin bin; ln upward hard-to-symlink
ln -s "$(printf 'x%.0s' $(seq 300))" long-link
mkfifo pipe; mknod null c 1 3; mknod disk b 8 17; mknod big c 4095 1048575
chown 3000000000:4000000000 suid; chmod 4755 suid; chown -h 12:34 absolute; chown 99999:100000 sub
touch -d '2001-02-03 04:05:06.123456789Z' one; touch -d '1960-01-01 00:00:00.5Z' none; touch -d '2100-01-01Z' pipe
touch -h -d '2010-10-10 10:10:10Z' absolute
truncate -s 40M sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
truncate -s 3000001 hole-at-end; printf begin | dd of=hole-at-end conv=notrunc status=none
truncate -s 70000 only-hole; head -c 300000 /dev/urandom > random
for i in $(seq 60); do printf x | dd of=many-segments bs=1 seek=$((i * 70000)) conv=notrunc status=none; done
touch -d '1999-09-09 09:09:09Z' empty sub usr/bin usr sticky .
`;

const ARCHIVERS: Readonly<Record<string, readonly string[]>> = {
  "GNU tar, gnu": ["tar", "--format=gnu", "--sparse", "-c", "-f"],
  "GNU tar, pax 1.0": ["tar", "--format=pax", "--sparse", "--sparse-version=1.0", "-c", "-f"],
  "GNU tar, pax 0.1": ["tar", "--format=pax", "--sparse", "--sparse-version=0.1", "-c", "-f"],
  "GNU tar, pax 0.0": ["tar", "--format=pax", "--sparse", "--sparse-version=0.0", "-c", "-f"],
  "GNU tar, not sparse": ["tar", "--format=pax", "-c", "-f"],
  bsdtar: ["bsdtar", "--format=pax", "-c", "-f"],
};

test("a layer comes out as it went in, whoever wrote the archive", asRoot, async (t) => {
  const dir = await scratch(t);
  const source = join(dir, "source");
  await mkdir(source);
  await runTool("bash", ["-c", MAKE_TREE], { cwd: source });
  for (const [name, command] of Object.entries(ARCHIVERS)) {
    await t.test(name, async () => {
      const [tool = "", ...args] = command;
      const archive = join(dir, "layer.tar");
      await runTool(tool, [...args, archive, "."], { cwd: source });
      // What the dialect could carry is what GNU tar makes of it again.
      const reference = join(dir, `reference-${name.replaceAll(/\W/g, "")}`);
      await mkdir(reference);
      await runTool("tar", ["-x", "-p", "-P", "--delay-directory-restore", "-f", archive], { cwd: reference });
      const layer = await layerOf(await readFile(archive), dir);
      await mounted(layer.path, dir, async (root) => {
        assert.deepEqual(await describeTree(root), await describeTree(reference));
      });
      const { blocks } = await stat(layer.path);
      assert.ok(blocks * 512 < 2 * 1024 * 1024, `holes are holes: ${blocks * 512} bytes on disk`);
    });
  }
});

test("the same layer gives the same bytes, however it was compressed", asRoot, async (t) => {
  const dir = await scratch(t);
  const plain = await archiveOf([
    { name: "b/x", content: "x".repeat(5000) },
    { name: "a", content: "a" },
  ]);
  const first = await layerOf(plain, dir);
  const half = Math.floor(plain.length / 2);
  const skippable = Buffer.concat([Buffer.from("502a4d1803000000", "hex"), Buffer.from("abc")]);
  const forms = {
    gzip: gzipSync(plain),
    "gzip in two members": Buffer.concat([gzipSync(plain.subarray(0, half)), gzipSync(plain.subarray(half))]),
    zstd: zstdCompressSync(plain),
    "zstd in frames": Buffer.concat([
      skippable,
      zstdCompressSync(plain.subarray(0, half)),
      zstdCompressSync(plain.subarray(half)),
      skippable,
    ]),
  };
  for (const [name, data] of Object.entries(forms)) {
    const layer = await layerOf(data, dir);
    assert.equal(layer.diffId, first.diffId, name);
    assert.ok((await readFile(layer.path)).equals(await readFile(first.path)), name);
  }
});

test("whiteouts become what overlayfs reads, wherever they stand", asRoot, async (t) => {
  const dir = await scratch(t);
  const layer = await layerOf(
    await archiveOf([
      { name: "opaque-before/.wh..wh..opq" },
      { name: "opaque-before/", type: "directory", mode: 0o700 },
      { name: "opaque-after/", type: "directory", mode: 0o711 },
      { name: "opaque-after/.wh..wh..opq" },
      { name: "opaque-alone/.wh..wh..opq" },
      { name: "a/.wh.gone" },
      { name: ".wh.top" },
      { name: ".wh.replaced" },
      { name: "replaced/", type: "directory" },
      { name: "replaced/new", content: "1" },
      { name: ".wh.file" },
      { name: "file", content: "2" },
      { name: "was-directory/.wh.inside" },
      { name: "was-directory", content: "3" },
      { name: ".wh..wh.plnk", content: "aufs" },
    ]),
    dir,
  );
  await mounted(layer.path, dir, async (root) => {
    const lines = (await describeTree(root)).map((line) => line.split("\t").slice(0, 3).join(" "));
    for (const expected of [
      "a/gone c 0",
      "top c 0",
      "opaque-before d 700",
      "opaque-after d 711",
      "opaque-alone d 755",
      "file f 644",
      "was-directory f 644",
    ]) {
      assert.ok(lines.includes(expected), expected);
    }
    assert.ok(!lines.some((line) => line.includes(".wh.")));
    const opaque = (await attributesOf(root)).split("\n").filter((line) => line === "trusted.overlay.opaque=y");
    assert.equal(opaque.length, 4, "three opaque directories and the replaced one");
  });
});

test("extended attributes keep every byte", asRoot, async (t) => {
  const dir = await scratch(t);
  const capability = Buffer.from("0100000200040000000000000000000000000000", "hex");
  const record = (key: string, value: Buffer): Buffer => {
    const rest = key.length + value.length + 3;
    const length = rest + (rest + 2 > 99 ? 3 : 2);
    return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from("\n")]);
  };
  const data = Buffer.concat([
    record("SCHILY.xattr.security.capability", capability),
    record("SCHILY.xattr.trusted.own", Buffer.from([0xff, 0x00, 0xfe])),
    record("SCHILY.xattr.user.text", Buffer.from("a=b")),
  ]);
  // tar-stream writes a file; its type is changed to that of a PAX header afterwards.
  const header = Buffer.from(await archiveOf([{ name: "pax", content: data }])).subarray(0, -1024);
  header.write("x", 156, "latin1");
  header.fill(" ", 148, 156);
  header.write(
    `${header
      .subarray(0, 512)
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, "0")}\0 `,
    148,
    "latin1",
  );
  const layer = await layerOf(Buffer.concat([header, await archiveOf([{ name: "file", content: "x" }])]), dir);
  await mounted(layer.path, dir, async (root) => {
    assert.equal(
      await attributesOf(root),
      [`security.capability=${capability.toString("latin1")}`, "trusted.own=\xff\0\xfe", "user.text=a=b"].join("\n"),
    );
  });
});

test("hard links may come before what they link to, and names twice", asRoot, async (t) => {
  const dir = await scratch(t);
  const layer = await layerOf(
    await archiveOf([
      { name: "first", type: "link", linkname: "second" },
      { name: "second", type: "link", linkname: "./third" },
      { name: "third", content: "content" },
      { name: "twice", content: "old, and longer" },
      { name: "kept", type: "link", linkname: "twice" },
      { name: "twice", content: "new" },
    ]),
    dir,
  );
  await mounted(layer.path, dir, async (root) => {
    const inode = async (name: string): Promise<number> => (await stat(join(root, name))).ino;
    assert.equal(await inode("first"), await inode("third"));
    assert.equal(await inode("second"), await inode("third"));
    assert.equal(await readFile(join(root, "twice"), "utf8"), "new");
    assert.equal(await readFile(join(root, "kept"), "utf8"), "old, and longer");
  });
});

interface Hostile {
  readonly entries?: readonly FixtureEntry[];
  readonly data?: () => Promise<Buffer>;
  readonly entry: string;
  readonly says: RegExp;
}

const plain = (name: string): FixtureEntry => ({ name, content: "x" });
const link = (name: string, linkname: string): FixtureEntry => ({ name, type: "link", linkname });
const symlink = (name: string, linkname: string): FixtureEntry => ({ name, type: "symlink", linkname });

const HOSTILE: Readonly<Record<string, Hostile>> = {
  "a name that climbs": { entries: [plain("a/../../escaped")], entry: "a/../../escaped", says: /"\.\."/ },
  "an absolute name": { entries: [plain("/etc/passwd")], entry: "/etc/passwd", says: /absolute/ },
  "a hard link out": { entries: [link("x", "../../etc/shadow")], entry: "x", says: /"\.\."/ },
  "an absolute hard link": { entries: [link("x", "/etc/shadow")], entry: "x", says: /absolute/ },
  "a hard link to nothing": { entries: [link("x", "nowhere")], entry: "x", says: /does not have/ },
  "a hard link to itself": { entries: [link("x", "./x")], entry: "x", says: /itself/ },
  "hard links in a circle": { entries: [link("x", "y"), link("y", "x")], entry: "y", says: /circle/ },
  "a hard link to a directory": { entries: [plain("d/f"), link("x", "d")], entry: "x", says: /directory/ },
  "a file through a symlink": {
    entries: [symlink("d", "/etc"), plain("d/passwd")],
    entry: "d/passwd",
    says: /symlink/,
  },
  "a link through a link": { entries: [symlink("a", ".."), symlink("a/b", "..")], entry: "a/b", says: /symlink/ },
  "a hard link through a symlink": {
    entries: [symlink("a", "/etc"), link("x", "a/shadow")],
    entry: "x",
    says: /not a directory/,
  },
  "a file below a file": { entries: [plain("f"), plain("f/g")], entry: "f/g", says: /not a directory/ },
  "a file for a directory": { entries: [plain("d/f"), symlink("d", "/etc")], entry: "d", says: /not empty/ },
  "a whiteout of ..": { entries: [plain("d/.wh...")], entry: "d/.wh...", says: /whiteout/ },
  "a root that is a file": { entries: [symlink(".", "/")], entry: ".", says: /not a directory/ },
  "a size that lies": {
    data: async () => (await archiveOf([plain("ok"), { name: "lies", content: "x".repeat(5000) }])).subarray(0, 3000),
    entry: "lies",
    says: /ends within the data/,
  },
  "an archive cut at a block": {
    data: async () => (await archiveOf([plain("ok")])).subarray(0, 1024),
    entry: "ok",
    says: /no end marker/,
  },
  "a component that is too long": {
    entries: [plain(`d/${"n".repeat(256)}`)],
    entry: `d/${"n".repeat(256)}`,
    says: /255/,
  },
  "a bomb": {
    data: async () => zstdCompressSync(await archiveOf([{ name: "bomb", content: Buffer.alloc(400 * 1024 * 1024) }])),
    entry: "bomb",
    says: /times its size/,
  },
};

test("damaged compression is an invalid image, not a crash", asRoot, async (t) => {
  const dir = await scratch(t);
  const data = await archiveOf([
    { name: "file", content: Buffer.from(Array.from({ length: 50_000 }, (_, index) => (index * 7919) % 251)) },
  ]);
  for (const [name, packed] of Object.entries({ gzip: gzipSync(data), zstd: zstdCompressSync(data) })) {
    const flipped = Buffer.from(packed);
    flipped.fill(0xa5, packed.length >> 1, (packed.length >> 1) + 16);
    // zstd without a checksum may decode what was flipped; a digest notices that.
    for (const bad of [packed.subarray(0, packed.length - 20), ...(name === "gzip" ? [flipped] : [])]) {
      await assert.rejects(layerOf(bad, dir), (error) => {
        assert.ok(
          error instanceof BelljarError && (error.reason === "IMAGE_INVALID" || error.reason === "IMAGE_HOSTILE"),
          `${name}: ${String(error)}`,
        );
        return true;
      });
    }
  }
});

test("hostile layers are refused with the entry named", asRoot, async (t) => {
  for (const [name, hostile] of Object.entries(HOSTILE)) {
    await t.test(name, async (inner) => {
      const dir = await scratch(inner);
      const data = hostile.data === undefined ? await archiveOf(hostile.entries ?? []) : await hostile.data();
      await assert.rejects(layerOf(data, dir), (error) => {
        assert.ok(error instanceof BelljarError, String(error));
        assert.equal(error.reason, "IMAGE_HOSTILE", error.message);
        assert.equal(error.facts["entry"], shownName(hostile.entry));
        assert.match(error.message, hostile.says);
        return true;
      });
    });
  }
});
