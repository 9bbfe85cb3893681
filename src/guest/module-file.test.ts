import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import { sectionHeaders } from "./elf.ts";
import { loadableModule } from "./module-file.ts";

const MARK = Buffer.from("~Module signature appended~\n");

/** An ELF file of sections alone: their names, and as content the names again. */
function elfWith(names: readonly string[]): Buffer {
  const strings = Buffer.from(`\0${names.join("\0")}\0`);
  const table = 64 + strings.length;
  const file = Buffer.alloc(table + 64 * (names.length + 1));
  file.write("\x7fELF\x02\x01\x01", "latin1");
  file.writeBigUInt64LE(BigInt(table), 40);
  file.writeUInt16LE(64, 58);
  file.writeUInt16LE(names.length + 1, 60);
  file.writeUInt16LE(0, 62);
  strings.copy(file, 64);
  // The first section holds the names.
  file.writeBigUInt64LE(64n, table + 24);
  file.writeBigUInt64LE(BigInt(strings.length), table + 32);
  for (const [index, name] of names.entries()) {
    const at = table + 64 * (index + 1);
    file.writeUInt32LE(strings.indexOf(`${name}\0`), at);
    file.writeBigUInt64LE(BigInt(64 + strings.indexOf(`${name}\0`)), at + 24);
    file.writeBigUInt64LE(BigInt(name.length), at + 32);
  }
  return file;
}

function signed(data: Buffer, signatureBytes: number, claimedBytes = signatureBytes): Buffer {
  const description = Buffer.alloc(12);
  description.writeUInt32BE(claimedBytes, 8);
  return Buffer.concat([data, Buffer.alloc(signatureBytes, 7), description, MARK]);
}

const sizes = (data: Buffer): Record<string, number> =>
  Object.fromEntries(sectionHeaders(data, "m.ko").map(({ name, size }) => [name, size]));

test("signature and type data go, all else stays", () => {
  const plain = elfWith([".text", ".BTF", ".modinfo", ".BTF_ids"]);
  const module = loadableModule(signed(plain, 600), "m.ko");
  assert.equal(module.length, plain.length);
  assert.deepEqual({ ...sizes(plain), ".BTF": 0 }, sizes(module));
  assert.equal(sizes(module)[".BTF_ids"], 8);
});

test("a module without either is left as it is, and the one handed in always", () => {
  const plain = elfWith([".text", ".modinfo"]);
  assert.ok(loadableModule(plain, "m.ko").equals(plain));
  const file = signed(elfWith([".BTF"]), 10);
  const before = Buffer.from(file);
  loadableModule(file, "m.ko");
  assert.ok(file.equals(before));
});

test("a signature that would be longer than the file is refused by name", () => {
  const refused = (error: unknown): boolean =>
    error instanceof BelljarError && error.reason === "GUEST_BUILD_FAILED" && /^m\.ko .*signature/.test(error.message);
  assert.throws(() => loadableModule(signed(elfWith([".text"]), 4, 1_000_000), "m.ko"), refused);
  assert.throws(() => loadableModule(MARK, "m.ko"), refused);
});
