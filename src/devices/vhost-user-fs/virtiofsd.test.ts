import assert from "node:assert/strict";
import { access, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../../../test/support/harness.ts";
import { until } from "../../../test/support/until.ts";
import { isAlive, signalProcess } from "../../base/index.ts";
import { endBackEndsOf, findBackEnds, pidFileOf, VIRTIOFSD } from "../back-end-process.ts";
import { endVirtiofsd, startVirtiofsd, virtiofsdCommand } from "./virtiofsd.ts";

test("virtiofsd: started, found by its socket, ended; twice is success", async (t) => {
  const dir = await tempDir(t);
  const socketPath = join(dir, "fs.sock");
  for (const readOnly of [false, true]) {
    const identity = await startVirtiofsd({ socketPath, directory: await tempDir(t), readOnly });
    t.after(() => endVirtiofsd(identity, socketPath));
    assert.equal(await isAlive(identity), true);
    await access(pidFileOf(socketPath));
    assert.deepEqual(await findBackEnds(dir), [{ identity, program: VIRTIOFSD, socketPath }]);
    await endVirtiofsd(identity, socketPath);
    await endVirtiofsd(identity, socketPath);
    assert.equal(await isAlive(identity), false);
    for (const path of [socketPath, pidFileOf(socketPath)]) await assert.rejects(stat(path), { code: "ENOENT" });
  }
  assert.deepEqual(await findBackEnds(dir), []);
});

test("virtiofsd: all below a directory are ended, and what is left of those that were gone already", async (t) => {
  const dir = await tempDir(t);
  // Names of pid files do not tell a dot from a slash: the server of this one is nobody's business here.
  const other = `${dir}.other`;
  await mkdir(other);
  t.after(() => endBackEndsOf(other));
  const [gone, serving, foreign] = [join(dir, "gone.sock"), join(dir, "serving.sock"), join(other, "fs.sock")];
  const [first, ...rest] = await Promise.all(
    [gone, serving, foreign].map((socketPath) => startVirtiofsd({ socketPath, directory: dir, readOnly: false })),
  );
  t.after(() => endBackEndsOf(dir));
  assert.ok(first !== undefined && (await signalProcess(first, "SIGKILL")));
  await until(async () => !(await findBackEnds(dir)).some(({ socketPath }) => socketPath === gone));
  await access(pidFileOf(gone));
  assert.equal(await endBackEndsOf(dir), 1);
  for (const path of [gone, serving]) await assert.rejects(stat(pidFileOf(path)), { code: "ENOENT" });
  await access(pidFileOf(foreign));
  assert.deepEqual(await Promise.all(rest.map(isAlive)), [false, true]);
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
