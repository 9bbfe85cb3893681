import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { canonicalJson } from "./canonical-json.ts";
import { decodeEnvelope, encodeEnvelope } from "./envelope.ts";

const header = { kind: "sandbox", version: 3, sequence: 17 };
const bytes = encodeEnvelope(header, { name: "web", devices: [{ bus: 1 }], gone: undefined });

describe("envelope", () => {
  it("is a header line and indented JSON", () => {
    const [first, ...rest] = Buffer.from(bytes).toString("utf8").split("\n");
    assert.match(first ?? "", /^belljar-state 1 kind=sandbox version=3 sequence=17 length=67 sha256=[0-9a-f]{64}$/);
    assert.deepEqual(rest, [
      "{",
      '  "devices": [',
      "    {",
      '      "bus": 1',
      "    }",
      "  ],",
      '  "name": "web"',
      "}",
      "",
    ]);
  });

  it("comes back as it went", () => {
    const { body, ...found } = decodeEnvelope(bytes, "file");
    assert.deepEqual(found, header);
    assert.deepEqual(JSON.parse(body), { name: "web", devices: [{ bus: 1 }] });
  });

  it("takes every flipped bit, cut, added byte and lost line for damage, never for a version", () => {
    const damaged: Uint8Array[] = [];
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const copy = Uint8Array.from(bytes);
      copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      damaged.push(copy);
    }
    for (let length = 0; length < bytes.length; length += 1) damaged.push(bytes.slice(0, length));
    damaged.push(Buffer.concat([bytes, Buffer.from("\n")]), Buffer.concat([Buffer.from("\n"), bytes]));
    damaged.push(Buffer.alloc(4096), bytes.slice(Buffer.from(bytes).indexOf("\n") + 1));
    for (const copy of damaged) {
      assert.throws(() => decodeEnvelope(copy, "/s/web.json"), {
        reason: "STATE_CORRUPT",
        message: /^\/s\/web\.json is damaged: /,
      });
    }
  });

  it("refuses to write a header that could not be read", () => {
    for (const bad of [
      { ...header, kind: "Sand box" },
      { ...header, version: 0 },
      { ...header, sequence: -1 },
      { ...header, sequence: 1.5 },
    ]) {
      assert.throws(() => encodeEnvelope(bad, {}), { reason: "INTERNAL" });
    }
  });
});

describe("canonical JSON", () => {
  it("has one spelling per value", () => {
    assert.equal(
      canonicalJson({ b: 1, a: [true, null, "é"], c: { z: 0, y: {} } }, "x", 0),
      canonicalJson({ c: { y: {}, z: 0 }, a: [true, null, "é"], b: 1 }, "x", 0),
    );
    assert.equal(canonicalJson(JSON.parse('{"__proto__": {"a": 1}}'), "x", 0), '{"__proto__":{"a":1}}');
    assert.equal(canonicalJson(-0, "x"), "0");
  });

  it("refuses what JSON would lose, naming the place", () => {
    class Thing {}
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    for (const bad of [
      Number.NaN,
      Infinity,
      new Map(),
      new Date(0),
      1n,
      () => 0,
      Symbol("s"),
      new Thing(),
      "\ud800",
      undefined,
      cyclic,
    ]) {
      assert.throws(() => canonicalJson({ list: [bad] }, "state"), {
        reason: "INTERNAL",
        message: /^state\.list\[0\]/,
      });
    }
  });
});
