import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { until } from "../test/support/until.ts";
import { findDisk } from "./disks.ts";

test("a disk that the kernel has missed is looked for by it, and found", async (t) => {
  const dir = await tempDir(t);
  const [sysDir, devDir] = [join(dir, "sys"), join(dir, "dev")];
  const [host, disk] = [join(sysDir, "class/scsi_host/host0"), join(sysDir, "block/sda/device")];
  for (const each of [host, disk, devDir]) await mkdir(each, { recursive: true });
  for (const file of [join(host, "scan"), join(disk, "rescan"), join(devDir, "sda")]) await writeFile(file, "");
  const finding = findDisk("w-1", { sysDir, devDir });
  await until(async () => (await readFile(join(disk, "rescan"), "utf8")) === "1", { what: "the kernel to be asked" });
  assert.equal(await readFile(join(host, "scan"), "utf8"), "- - -");
  await writeFile(join(disk, "vpd_pg80"), "\0\x80\0\x03w-1", "latin1");
  assert.equal(await finding, join(devDir, "sda"));
  await assert.rejects(findDisk("w-2", { sysDir, devDir }, 1), {
    reason: "AGENT_FAILED",
    message: /w-2 appeared within 1 ms/,
  });
});
