import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import { isElf, neededLibraries, withoutSymbols } from "./elf.ts";

test("Node's own binary: its libraries are found, also after its symbols are gone", async () => {
  const node = await readFile(process.execPath);
  const needed = neededLibraries(node, "node");
  assert.ok(needed.includes("libc.so.6"), `libc.so.6 is not among ${needed.join(", ")}`);
  const stripped = withoutSymbols(node, "node");
  assert.ok(stripped.length < node.length);
  assert.deepEqual(neededLibraries(stripped, "node"), needed);
});

test("what is not ELF is refused by name", () => {
  assert.equal(isElf(Buffer.from("#!/bin/sh\n")), false);
  assert.throws(
    () => neededLibraries(Buffer.alloc(128), "bin/thing"),
    (error) => error instanceof BelljarError && error.message.startsWith("bin/thing cannot be used"),
  );
});

test("a truncated file is refused, never read past its end", async () => {
  const node = await readFile(process.execPath);
  assert.throws(() => withoutSymbols(Buffer.from(node.subarray(0, 4096)), "node"), /node cannot be used/);
  assert.throws(() => neededLibraries(Buffer.from(node.subarray(0, 4096)), "node"), /node cannot be used/);
});
