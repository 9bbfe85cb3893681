/**
 * Files as earlier versions wrote them. They are never changed: a reader of today must read them, and a writer of today
 * must still write the newest of each byte for byte. A new version adds a file and leaves the others.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { encodeEnvelope } from "./envelope.ts";
import { decodeState, type StateSchema } from "./state-file.ts";

interface Lamp {
  readonly name: string;
  readonly brightnessPercent: number;
  readonly tags: readonly string[];
}

/** Version 1 had `on`, version 2 a brightness from 0 to 1, version 3 percent and tags. */
const schema: StateSchema<Lamp> = {
  kind: "lamp",
  migrations: [
    (old) => ({ name: old.field("name").string(), brightness: old.field("on").boolean() ? 1 : 0 }),
    (old) => ({
      name: old.field("name").string(),
      brightnessPercent: old.field("brightness").number({ min: 0, max: 1 }) * 100,
      tags: [],
    }),
  ],
  decode: (field) => ({
    name: field.field("name").string(),
    brightnessPercent: field.field("brightnessPercent").integer({ min: 0, max: 100 }),
    tags: field.field("tags").array((tag) => tag.string()),
  }),
};

const golden = (name: string): Promise<Uint8Array> => readFile(new URL(`golden/${name}`, import.meta.url));

describe("golden state files", () => {
  it("version 1 goes through both migrations", async () => {
    assert.deepEqual(decodeState(await golden("lamp-1.state"), "lamp-1", schema), {
      value: { name: "desk", brightnessPercent: 100, tags: [] },
      sequence: 1,
    });
  });

  it("version 2 goes through one", async () => {
    assert.deepEqual(decodeState(await golden("lamp-2.state"), "lamp-2", schema), {
      value: { name: "desk", brightnessPercent: 25, tags: [] },
      sequence: 17,
    });
  });

  it("version 3 is today's, and is written byte for byte", async () => {
    const bytes = await golden("lamp-3.state");
    const value: Lamp = { name: "desk", brightnessPercent: 40, tags: ["warm", "déjà vu"] };
    assert.deepEqual(decodeState(bytes, "lamp-3", schema), { value, sequence: 9_007_199_254_740_991 });
    const header = { kind: "lamp", version: 3, sequence: 9_007_199_254_740_991 };
    assert.deepEqual(Buffer.from(encodeEnvelope(header, value)), Buffer.from(bytes));
  });

  it("version 4, and file format 2, are newer: refused by their own reason", async () => {
    const newer = await golden("lamp-4.state");
    assert.throws(() => decodeState(newer, "/s/lamp.json", schema), {
      reason: "STATE_VERSION",
      message: "/s/lamp.json has version 4 of its lamp; this Belljar knows up to 3",
    });
    const format = await golden("format-2.state");
    assert.throws(() => decodeState(format, "/s/lamp.json", schema), {
      reason: "STATE_VERSION",
      message: "/s/lamp.json has version 2 of its file format; this Belljar knows up to 1",
    });
  });
});
