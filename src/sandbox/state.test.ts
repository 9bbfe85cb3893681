/**
 * Files as earlier versions wrote them: they are never changed, and a reader of today reads them. Today's is also written byte for
 * byte; a new version adds a file and leaves the others.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { containerSandboxSchema as schema } from "../container/index.ts";
import { decodeState, encodeEnvelope } from "../store/index.ts";

const golden = (version: number): Promise<Buffer> =>
  readFile(new URL(`golden/sandbox-${version}.state`, import.meta.url));

test("state: today's version is read, and written byte for byte", async () => {
  const bytes = await golden(2);
  const { value, sequence } = decodeState(bytes, "sandbox-2", schema);
  assert.equal(sequence, 7);
  assert.equal(value.state, "paused");
  assert.deepEqual(value.pending, { operation: "resume", sinceMs: 1_700_000_002_000 });
  assert.equal(value.vm?.vmm.pid, 4242);
  const [main, other] = value.containers;
  assert.equal(main?.limits.memoryBytes, 67_108_864);
  assert.equal(main?.processes[0]?.id, "0a1b2c3d4e5f");
  assert.deepEqual(other?.status?.signal, 9);
  assert.equal(other?.end?.reason, "VMM_DIED");
  const header = { kind: "sandbox", version: 2, sequence: 7 };
  assert.deepEqual(Buffer.from(encodeEnvelope(header, value)), bytes);
});

test("state: version 1, whose sandboxes ended with their owner, becomes one that is to be deleted", async () => {
  const { value } = decodeState(await golden(1), "sandbox-1", schema);
  assert.equal(value.id, "00c0ffee0001");
  assert.equal(value.pending?.operation, "delete");
  assert.equal(value.vm?.vmm.pid, 4242);
  assert.deepEqual(value.containers, []);
});

test("state: a newer version, and damage, are refused by different reasons", async () => {
  const { value } = decodeState(await golden(2), "sandbox-2", schema);
  const newer = encodeEnvelope({ kind: "sandbox", version: 3, sequence: 1 }, value);
  assert.throws(() => decodeState(newer, "newer", schema), { reason: "STATE_VERSION" });
  const bytes = await golden(2);
  bytes[bytes.length - 10] = (bytes[bytes.length - 10] ?? 0) ^ 1;
  assert.throws(() => decodeState(bytes, "damaged", schema), { reason: "STATE_CORRUPT" });
});

test("state: what is not a possible state is damage, whatever its checksum says", async () => {
  const { value } = decodeState(await golden(2), "sandbox-2", schema);
  const [main] = value.containers;
  for (const wrong of [
    { ...value, id: "../../etc" },
    { ...value, state: "flying" },
    { ...value, pending: { operation: "fly", sinceMs: 1 } },
    { ...value, containers: [{ ...main, id: "x" }] },
    { ...value, containers: [{ ...main, disks: [{ ...main?.disks[0], serial: "UPPER CASE" }] }] },
    { ...value, containers: Array.from({ length: 101 }, () => main) },
  ]) {
    const bytes = encodeEnvelope({ kind: "sandbox", version: 2, sequence: 1 }, wrong);
    assert.throws(() => decodeState(bytes, "wrong", schema), { reason: "STATE_CORRUPT" });
  }
});
