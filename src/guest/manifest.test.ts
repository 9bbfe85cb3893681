import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import { decodeManifest, encodeManifest, GUEST_FILES, type GuestManifest, MANIFEST_VERSION } from "./manifest.ts";

const SHA = "0123456789abcdef".repeat(4);

function sample(): GuestManifest {
  return {
    version: MANIFEST_VERSION,
    inputs: {
      architecture: "x64",
      recipeSha256: SHA,
      builderSha256: SHA,
      packages: [{ name: "crun", version: "1.8.1-1", sha256: SHA }],
      node: { version: "24.0.0", sha256: SHA },
      agentSha256: SHA,
      tools: { "mkfs.erofs": "1.5" },
    },
    kernelRelease: "6.1.0-1",
    kernelArguments: ["quiet", "panic=-1"],
    outputs: Object.fromEntries(Object.values(GUEST_FILES).map((name) => [name, { sizeBytes: 7, sha256: SHA }])),
  };
}

test("what was encoded is decoded, and encodes to the same text", () => {
  const text = encodeManifest(sample());
  assert.deepEqual(decodeManifest(text, "m"), sample());
  assert.equal(encodeManifest(decodeManifest(text, "m")), text);
});

const damaged: readonly (readonly [what: string, change: (text: string) => string, message: RegExp])[] = [
  ["cut short", (text) => text.slice(0, 40), /not valid JSON/],
  ["a newer version", (text) => text.replace(`"version": ${MANIFEST_VERSION}\n`, '"version": 99\n'), /version/],
  ["a digest that is none", (text) => text.replace(SHA, "xyz"), /sha256|Sha256/],
  ["a missing file", (text) => text.replace('"root.erofs"', '"rootX.erofs"'), /rootX\.erofs/],
  ["a negative size", (text) => text.replace('"sizeBytes": 7', '"sizeBytes": -7'), /sizeBytes/],
  ["an unknown field", (text) => text.replace('"kernelRelease"', '"kernelReleases"'), /kernelReleases/],
];

for (const [what, change, message] of damaged) {
  test(`a manifest with ${what} is refused, naming the place`, () => {
    const text = encodeManifest(sample());
    assert.notEqual(change(text), text, "the test changes nothing");
    assert.throws(
      () => decodeManifest(change(text), "manifest.json"),
      (error) => error instanceof BelljarError && error.reason === "GUEST_IMAGE_CORRUPT" && message.test(error.message),
    );
  });
}
