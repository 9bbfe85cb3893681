import assert from "node:assert/strict";
import { test } from "node:test";
import { type ModuleSource, moduleClosure, modulesDep } from "./kernel-modules.ts";

/** A kernel module with nothing but its description: an ELF header, .modinfo, the names of sections, the list of them. */
function fakeModule(depends: string): Buffer {
  const info = Buffer.from(`license=GPL\0depends=${depends}\0`);
  const names = Buffer.from("\0.modinfo\0.shstrtab\0");
  const header = Buffer.alloc(64);
  header.writeUInt32BE(0x7f454c46, 0);
  header[4] = 2;
  header[5] = 1;
  header.writeBigUInt64LE(BigInt(64 + info.length + names.length), 40);
  header.writeUInt16LE(64, 58);
  header.writeUInt16LE(3, 60);
  header.writeUInt16LE(2, 62);
  const section = (name: number, offset: number, size: number): Buffer => {
    const entry = Buffer.alloc(64);
    entry.writeUInt32LE(name, 0);
    entry.writeBigUInt64LE(BigInt(offset), 24);
    entry.writeBigUInt64LE(BigInt(size), 32);
    return entry;
  };
  const sections = [section(0, 0, 0), section(1, 64, info.length), section(10, 64 + info.length, names.length)];
  return Buffer.concat([header, info, names, ...sections]);
}

function source(modules: Readonly<Record<string, string>>, builtIn: readonly string[] = []): ModuleSource {
  return {
    read: async (name) => {
      const depends = modules[name];
      return depends === undefined ? undefined : fakeModule(depends);
    },
    isBuiltIn: (name) => builtIn.includes(name),
  };
}

test("what a module needs comes before it, once, and what the kernel has is left out", async () => {
  const modules = await moduleClosure(
    ["sd_mod", "ext4", "virtio_scsi"],
    source(
      {
        sd_mod: "scsi_mod",
        virtio_scsi: "scsi_mod,virtio,virtio-ring",
        scsi_mod: "scsi_common",
        scsi_common: "",
        virtio: "virtio_ring",
        virtio_ring: "",
      },
      ["ext4"],
    ),
  );
  assert.deepEqual(
    modules.map((module) => module.name),
    ["scsi_common", "scsi_mod", "sd_mod", "virtio_ring", "virtio", "virtio_scsi"],
  );
  assert.equal(
    modulesDep(modules),
    [
      "scsi_common.ko:",
      "scsi_mod.ko: scsi_common.ko",
      "sd_mod.ko: scsi_mod.ko scsi_common.ko",
      "virtio_ring.ko:",
      "virtio.ko: virtio_ring.ko",
      "virtio_scsi.ko: virtio.ko virtio_ring.ko scsi_mod.ko scsi_common.ko",
      "",
    ].join("\n"),
  );
});

test("a module that does not exist is named, with what needs it", async () => {
  await assert.rejects(moduleClosure(["a"], source({ a: "b" })), /has no module b, which a needs/);
  await assert.rejects(moduleClosure(["c"], source({})), /has no module c$/);
});

test("modules that need each other end in an error, not in a loop", async () => {
  await assert.rejects(moduleClosure(["a"], source({ a: "b", b: "a" })), /need each other: a, b, a/);
});
