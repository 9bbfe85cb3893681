import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../../../test/support/harness.ts";
import { isAlive } from "../../base/index.ts";
import { findBackEnds, VIRTIOFSD } from "../back-end-process.ts";
import { endVirtiofsd, startVirtiofsd, virtiofsdCommand } from "./virtiofsd.ts";

test("virtiofsd: started, found by its socket, ended; twice is success", async (t) => {
  const dir = await tempDir(t);
  const socketPath = join(dir, "fs.sock");
  for (const readOnly of [false, true]) {
    const identity = await startVirtiofsd({ socketPath, directory: await tempDir(t), readOnly });
    t.after(() => endVirtiofsd(identity, socketPath));
    assert.equal(await isAlive(identity), true);
    assert.deepEqual(await findBackEnds(dir), [{ identity, program: VIRTIOFSD, socketPath }]);
    await endVirtiofsd(identity, socketPath);
    await endVirtiofsd(identity, socketPath);
    assert.equal(await isAlive(identity), false);
    await assert.rejects(stat(socketPath), { code: "ENOENT" });
  }
  assert.deepEqual(await findBackEnds(dir), []);
});

test("virtiofsd: one that cannot start says why, and leaves nothing", async (t) => {
  const dir = await tempDir(t);
  const socketPath = join(dir, "fs.sock");
  const file = join(dir, "file");
  await writeFile(file, "");
  const start = startVirtiofsd({ socketPath, directory: join(dir, "absent"), readOnly: true });
  await assert.rejects(start, { reason: "HOST_TOOL_FAILED", message: /absent/ });
  await assert.rejects(readFile(`${socketPath}.log`), { code: "ENOENT" });
});

test("virtiofsd: a comma in a path stays in it", async () => {
  const { args } = virtiofsdCommand({ socketPath: "/s", directory: "/a,b\\c", readOnly: false });
  assert.ok(args.includes("source=/a\\,b\\\\c"));
});
