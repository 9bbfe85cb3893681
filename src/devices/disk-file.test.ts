import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { checkDiskFile, type DiskFormat } from "./disk-file.ts";
import { inspectHostNode, isDrive } from "./host-node.ts";

/** The head of a qcow2 file, as its specification has it. */
function qcow2(change: (header: Buffer) => void = () => {}): Buffer {
  const file = Buffer.alloc(4 * 65_536);
  file.write("QFI\xfb", 0, "latin1");
  file.writeUInt32BE(3, 4);
  file.writeUInt32BE(16, 20);
  file.writeBigUInt64BE(10n << 20n, 24);
  file.writeUInt32BE(1, 36);
  file.writeBigUInt64BE(3n * 65_536n, 40);
  file.writeBigUInt64BE(65_536n, 48);
  file.writeUInt32BE(1, 56);
  change(file);
  return file;
}

test("a disk's format is found out, and what is no whole disk is refused", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "belljar-disk-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const path = join(dir, "disk");
  const check = async (content: Buffer, wanted?: DiskFormat): Promise<DiskFormat> => {
    await writeFile(path, content);
    return await checkDiskFile(path, content.length, wanted);
  };
  const refused = (content: Buffer, message: RegExp, wanted?: DiskFormat): Promise<void> =>
    assert.rejects(check(content, wanted), { reason: "DISK_INVALID", message });
  const raw = Buffer.alloc(1024);
  assert.equal(await check(raw), "raw");
  assert.equal(await check(qcow2()), "qcow2");
  assert.equal(await check(qcow2(), "raw"), "raw");
  await refused(Buffer.alloc(0), /is empty/);
  await refused(Buffer.alloc(1000), /no whole number of sectors/);
  await refused(raw, /is not a qcow2 file/, "qcow2");
  for (const [format, at, magic] of [
    ["VMDK", 0, "KDMV"],
    ["VHDX", 0, "vhdxfile"],
    ["VHD", 0, "conectix"],
    ["VDI", 64, "\x7f\x10\xda\xbe"],
    ["QED", 0, "QED\0"],
  ] as const) {
    const foreign = Buffer.alloc(1024);
    foreign.write(magic, at, "latin1");
    await refused(foreign, new RegExp(`of the format ${format}`));
    // Who says that it is raw knows.
    assert.equal(await check(foreign, "raw"), "raw");
  }
  // Whoever made these chose files of the host that the guest would read.
  await refused(
    qcow2((header) => header.writeBigUInt64BE(600n, 8)),
    /lies over another file/,
  );
  await refused(
    qcow2((header) => header.writeBigUInt64BE(4n, 72)),
    /data in another file/,
  );
  await refused(
    qcow2((header) => header.writeUInt32BE(9, 4)),
    /unknown version/,
  );
  await refused(
    qcow2((header) => header.writeUInt32BE(60, 20)),
    /damaged/,
  );
  await refused(qcow2().subarray(0, 65_536), /cut short/);
});

test("paths: what is neither a file nor a disk is refused, and so is what is not there", async () => {
  assert.equal((await inspectHostNode("/dev/null")).key, "c:1:3");
  await assert.rejects(inspectHostNode("relative"), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(inspectHostNode("/absent"), { reason: "DEVICE_NOT_FOUND" });
  await assert.rejects(inspectHostNode("/tmp"), { reason: "DEVICE_UNSUPPORTED" });
});

test("drives with media are nobody's device", () => {
  assert.deepEqual(
    [2, 8, 11, 29].map((major) => isDrive("block", major)),
    [true, false, true, true],
  );
  assert.equal(isDrive("file", 11), false);
});
