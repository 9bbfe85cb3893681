/**
 * The durable writer against the fault model of test/support/memory-disk.ts. The last tests break the writer on purpose:
 * a model that does not find those would prove nothing about the real one.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hasErrno } from "../../src/base/index.ts";
import type { Disk } from "../../src/store/disk.ts";
import { removeFileDurably, sweepTemporaryFiles, writeFileDurably } from "../../src/store/durable-file.ts";
import { MemoryDisk } from "../support/memory-disk.ts";
import { everyPowerLoss, type PowerLossReport } from "../support/power-loss.ts";

const FILE = "/state/file";
const OLD = "old ".repeat(400);
const NEW = "new! ".repeat(500);
const NEWER = "newer ".repeat(900);

type Write = (disk: Disk, content: string) => Promise<void>;
const durably: Write = (disk, content) => writeFileDurably(FILE, content, { disk });

async function preparedDisk(content: string | undefined): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await disk.makeDirectory("/state", 0o700);
  await disk.syncDirectory("/");
  if (content !== undefined) await durably(disk, content);
  return disk;
}

async function contentOf(disk: MemoryDisk): Promise<string | undefined> {
  try {
    return Buffer.from(await disk.read(FILE, 1 << 20)).toString("utf8");
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

/** Goes through `contents` (undefined removes); at each instant only the acknowledged one or the next may be found. */
function survives(before: string | undefined, contents: readonly (string | undefined)[], write = durably) {
  return everyPowerLoss({
    prepare: () => preparedDisk(before),
    newHistory: () => ({ acknowledged: 0 }),
    run: async (disk, history) => {
      for (const content of contents) {
        await (content === undefined ? removeFileDurably(FILE, disk) : write(disk, content));
        history.acknowledged += 1;
      }
    },
    check: async (found, history) => {
      const states = [before, ...contents];
      const allowed = states.slice(history.acknowledged, history.acknowledged + 2);
      const content = await contentOf(found);
      assert.ok(allowed.includes(content), `found ${JSON.stringify(content?.slice(0, 40))}`);
      await sweepTemporaryFiles("/state", found);
      assert.deepEqual(await found.list("/state"), content === undefined ? [] : ["file"]);
      await durably(found, "after");
      assert.equal(await contentOf(found.afterPowerLoss(() => 0)), "after");
    },
  });
}

function assertThorough(report: PowerLossReport, atLeast: number): void {
  assert.ok(report.combinations >= atLeast, `only ${report.combinations} combinations`);
}

describe("durable writer: power loss", () => {
  it("creates: nothing or all", async () => {
    assertThorough(await survives(undefined, [NEW]), 200);
  });

  it("replaces: old or new", async () => {
    assertThorough(await survives(OLD, [NEWER]), 200);
  });

  it("removes: there or not", async () => {
    assertThorough(await survives(OLD, [undefined]), 4);
  });

  it("survives at every instant of a longer sequence", async () => {
    assertThorough(await survives(undefined, [OLD, NEW, undefined, NEWER, OLD, "", NEW]), 2_000);
  });
});

describe("durable writer: failures of the disk", () => {
  for (const before of [undefined, OLD]) {
    for (const errno of ["ENOSPC", "EIO", "EROFS", "EDQUOT"]) {
      it(`${errno} at every operation, ${before === undefined ? "creating" : "replacing"}`, async () => {
        for (let at = 0; ; at += 1) {
          const disk = await preparedDisk(before);
          const first = disk.operations.length;
          disk.fault = { at: first + at, errno };
          try {
            await durably(disk, NEW);
            assert.ok(at >= 5, "the fault of each operation is reported");
            break;
          } catch (error) {
            assert.ok(hasErrno(error, errno));
          }
          disk.fault = undefined;
          const last = disk.operations[first + at] ?? "";
          // Once renamed, the new content is in place; the caller is told that it may not last.
          const expected = last.startsWith("syncDirectory") ? NEW : before;
          assert.equal(await contentOf(disk), expected, last);
          assert.deepEqual(await disk.list("/state"), expected === undefined ? [] : ["file"], last);
          await durably(disk, NEWER);
          assert.equal(await contentOf(disk.afterPowerLoss(() => 0)), NEWER);
        }
      });
    }
  }

  it("keeps the old content and the first error when the disk stays broken, and start-up sweeps", async () => {
    for (let at = 0; at < 4; at += 1) {
      const disk = await preparedDisk(OLD);
      disk.fault = { at: disk.operations.length + at, errno: "EROFS", persistent: true };
      await assert.rejects(durably(disk, NEW), (error: unknown) => hasErrno(error, "EROFS"));
      disk.fault = undefined;
      await sweepTemporaryFiles("/state", disk);
      assert.equal(await contentOf(disk), OLD);
      assert.deepEqual(await disk.list("/state"), ["file"]);
    }
  });
});

describe("durable writer: the model finds a writer that", () => {
  const broken: Readonly<Record<string, Write>> = {
    "does not sync the file": async (disk, content) => {
      const file = await disk.create(`${FILE}.tmp`, 0o600);
      await file.write(Buffer.from(content));
      await file.close();
      await disk.rename(`${FILE}.tmp`, FILE);
      await disk.syncDirectory("/state");
    },
    "does not sync the directory": async (disk, content) => {
      const file = await disk.create(`${FILE}.tmp`, 0o600);
      await file.write(Buffer.from(content));
      await file.sync();
      await file.close();
      await disk.rename(`${FILE}.tmp`, FILE);
    },
    "removes the old file first": async (disk, content) => {
      await disk.unlink(FILE);
      const file = await disk.create(FILE, 0o600);
      await file.write(Buffer.from(content));
      await file.sync();
      await file.close();
      await disk.syncDirectory("/state");
    },
    "syncs after the rename": async (disk, content) => {
      const file = await disk.create(`${FILE}.tmp`, 0o600);
      await file.write(Buffer.from(content));
      await disk.rename(`${FILE}.tmp`, FILE);
      await file.sync();
      await file.close();
      await disk.syncDirectory("/state");
    },
    "syncs again after a sync that failed": async (disk, content) => {
      const file = await disk.create(`${FILE}.tmp`, 0o600);
      await file.write(Buffer.from(content));
      if (disk instanceof MemoryDisk) disk.fault = { at: disk.operations.length, errno: "EIO" };
      await file.sync().catch(() => file.sync());
      await file.close();
      await disk.rename(`${FILE}.tmp`, FILE);
      await disk.syncDirectory("/state");
    },
  };
  for (const [what, write] of Object.entries(broken)) {
    it(what, async () => {
      await assert.rejects(survives(OLD, [NEW], write), /after \d+ operations/);
    });
  }
});
