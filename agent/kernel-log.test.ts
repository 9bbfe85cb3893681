import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { lastKernelLines } from "./kernel-log.ts";

test("of a record of the kernel's log there is what it says, and nothing where there is no log", async (t) => {
  const path = join(await tempDir(t), "kmsg");
  await writeFile(path, "6,339,5140900,-;crun[77]: segfault at 8; error 4\n SUBSYSTEM=none\n");
  assert.deepEqual(lastKernelLines(3, path), ["crun[77]: segfault at 8; error 4"]);
  assert.deepEqual(lastKernelLines(3, `${path}-none`), []);
});
