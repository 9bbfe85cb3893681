import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decodeField, type Field, parseJson } from "./decode.ts";
import { BelljarError } from "./errors.ts";
import { decodeLimits } from "./limits.ts";

const root = (value: unknown): Field => decodeField(value, "sandbox", "STATE_CORRUPT");

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof BelljarError);
    assert.equal(error.reason, "STATE_CORRUPT");
    return error.message;
  }
  return "accepted";
}

describe("decoding", () => {
  it("reads a document field by field", () => {
    const field = root({
      name: "web",
      vmm: { pid: 42, kvm: true },
      load: 0.5,
      state: "ready",
      disks: [{ size: 1 }],
      env: { A: "1" },
      none: null,
    });
    assert.deepEqual(
      {
        name: field.field("name").string({ minLength: 1, maxLength: 3, pattern: /^w/ }),
        pid: field.field("vmm").field("pid").integer({ min: 42, max: 42 }),
        kvm: field.field("vmm").field("kvm").boolean(),
        load: field.field("load").number({ min: 0, max: 1 }),
        state: field.field("state").oneOf(["ready", "stopped"]),
        disks: field.field("disks").array((disk) => disk.field("size").integer()),
        env: field.field("env").map((value) => value.string()),
        none: field.field("none").optional((value) => value.string()),
        absent: field.field("absent").optional((value) => value.string()),
      },
      {
        name: "web",
        pid: 42,
        kvm: true,
        load: 0.5,
        state: "ready",
        disks: [1],
        env: { A: "1" },
        none: undefined,
        absent: undefined,
      },
    );
  });

  it("names the path, what was expected and what was found", () => {
    const field = root({
      vmm: { pid: "x", list: [1, { b: null }] },
      "odd key": {},
      long: "y".repeat(100),
      state: "gone",
    });
    const cases: readonly (readonly [() => unknown, string])[] = [
      [() => field.field("vmm").field("pid").integer(), 'sandbox.vmm.pid: expected an integer, found "x"'],
      [() => field.field("vmm").field("tid").integer(), "sandbox.vmm.tid: missing; expected an integer"],
      [() => field.field("vmm").string(), "sandbox.vmm: expected a string, found an object"],
      [() => field.field("vmm").field("pid").field("x"), 'sandbox.vmm.pid: expected an object, found "x"'],
      [() => field.field("none").field("x"), "sandbox.none: missing; expected an object"],
      [() => field.field("vmm").field("list").boolean(), "sandbox.vmm.list: expected true or false, found a list"],
      [
        () =>
          field
            .field("vmm")
            .field("list")
            .array((item) => item.integer()),
        "sandbox.vmm.list[1]: expected an integer, found an object",
      ],
      [
        () =>
          field
            .field("vmm")
            .field("list")
            .array((item) => item.field("b").string()),
        "sandbox.vmm.list[0]: expected an object, found 1",
      ],
      [() => field.field("odd key").field("a").number(), 'sandbox["odd key"].a: missing; expected a number'],
      [() => field.field("long").integer(), `sandbox.long: expected an integer, found "${"y".repeat(40)}..."`],
      [
        () => field.field("state").oneOf(["ready", "stopped"]),
        'sandbox.state: expected one of "ready", "stopped", found "gone"',
      ],
      [() => field.field("vmm").onlyFields(["pid"]), 'sandbox.vmm: unknown field "list"'],
      [
        () => field.field("long").string({ maxLength: 99 }),
        `sandbox.long: expected a string of at most 99 characters, found "${"y".repeat(40)}..."`,
      ],
    ];
    for (const [act, message] of cases) assert.equal(refusal(act), message);
  });

  it("refuses numbers that are not what they seem", () => {
    for (const value of [1.5, Number.NaN, Infinity, 2 ** 53, "1", true, null, [1], 1n]) {
      assert.match(
        refusal(() => root(value).integer()),
        /expected an integer/,
      );
    }
    assert.match(
      refusal(() => root(0).integer({ min: 1 })),
      /an integer of at least 1, found 0/,
    );
    assert.match(
      refusal(() => root(9).number({ max: 8 })),
      /a number of at most 8, found 9/,
    );
  });

  it("bounds strings, lists, maps and nesting, and refuses ill-formed text", () => {
    assert.match(
      refusal(() => root("x".repeat(decodeLimits.stringMaxLength + 1)).string()),
      /at most 65536 characters/,
    );
    assert.match(
      refusal(() => root("\ud800").string()),
      /well-formed/,
    );
    const long = Array.from({ length: decodeLimits.itemsMax + 1 }, () => 0);
    assert.match(
      refusal(() => root(long).array((item) => item.integer())),
      /at most 16384 items, found 16385/,
    );
    assert.match(
      refusal(() => root({ a: 1, b: 2 }).map((item) => item.integer(), { maxItems: 1 })),
      /at most 1 items/,
    );
    const nested: Field = parseJson(`${"[".repeat(5_000)}${"]".repeat(5_000)}`, "deep", "STATE_CORRUPT");
    const descend = (field: Field): unknown => field.array(descend);
    assert.match(
      refusal(() => descend(nested)),
      /nested deeper than 32 levels/,
    );
  });

  it("takes only own properties, and keys of a map as data", () => {
    assert.match(
      refusal(() => root({}).field("constructor").string()),
      /missing/,
    );
    const map = root(JSON.parse('{"__proto__": "x", "a": "y"}')).map((value) => value.string());
    assert.deepEqual(Object.entries(map), [
      ["__proto__", "x"],
      ["a", "y"],
    ]);
    assert.equal(Object.getPrototypeOf(map), Object.prototype);
  });

  it("carries the reason of its caller, for text that is not JSON too", () => {
    assert.throws(() => parseJson("{", "config", "IMAGE_INVALID"), {
      reason: "IMAGE_INVALID",
      message: "config: not valid JSON",
    });
    assert.throws(() => parseJson("[]", "config", "VMM_PROTOCOL").string(), {
      reason: "VMM_PROTOCOL",
      facts: { field: "config" },
    });
  });
});
