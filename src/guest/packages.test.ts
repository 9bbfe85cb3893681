import assert from "node:assert/strict";
import { test } from "node:test";
import { parseStanzas } from "./packages.ts";

const SHA = "a".repeat(64);

test("what apt-cache prints is read: the first stanza of each package, its version, digest and dependencies", () => {
  const stanzas = parseStanzas(
    [
      `Package: crun\nVersion: 1.8.1-1\nDepends: libc6 (>= 2.34), libcap2\nDescription-en: a runtime\n of containers\n .\n Version: 9\nSHA256: ${SHA}`,
      `Package: crun\nVersion: 1.0\nSHA256: ${SHA}`,
      "Package: local\nVersion: 1.0\nStatus: install ok installed",
      "",
    ].join("\n\n"),
  );
  assert.deepEqual(
    [...stanzas],
    [["crun", { package: { name: "crun", version: "1.8.1-1", sha256: SHA }, depends: "libc6 (>= 2.34), libcap2" }]],
  );
});

test("a digest that is none makes the package unknown", () => {
  assert.equal(parseStanzas("Package: a\nVersion: 1\nSHA256: ../../etc").size, 0);
});
