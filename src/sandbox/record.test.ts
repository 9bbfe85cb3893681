/** What a sandbox's file says of it, and when. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../../test/support/harness.ts";
import { silentLog } from "../base/index.ts";
import { containerSandboxSchema as schema } from "../container/index.ts";
import { decodeState, systemDisk } from "../store/index.ts";
import { SandboxRecord } from "./record.ts";

test("a change that waits for the next one is known at once, and written with that", async (t) => {
  const sandboxesDir = await tempDir(t);
  const bytes = await readFile(new URL("golden/sandbox-2.state", import.meta.url));
  const { value } = decodeState(bytes, "sandbox-2", schema);
  const record = await SandboxRecord.create({ sandboxesDir, schema, disk: systemDisk, log: silentLog }, value);
  const path = join(record.dir, "sandbox.json");
  const written = async (): Promise<readonly unknown[]> => {
    const { value: now, sequence } = decodeState(await readFile(path), path, schema);
    return [sequence, now.generation, now.runDir];
  };
  const { generation, runDir } = value;
  assert.deepEqual(await written(), [1, generation, runDir]);
  await record.update((state) => ({ ...state, generation: generation + 1 }), { withNext: true });
  assert.equal(record.state.generation, generation + 1);
  assert.deepEqual(await written(), [1, generation, runDir]);
  const [before] = await record.update((state) => ({ ...state, runDir: "/run/other" }));
  assert.equal(before.generation, generation + 1);
  assert.deepEqual(await written(), [2, generation + 1, "/run/other"]);
});
