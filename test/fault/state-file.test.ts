/** State files against power loss and failures of the disk: old or new state, and a value in memory that is the file's. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BelljarError, type ErrorReason } from "../../src/base/index.ts";
import { StateFile, type StateSchema, sweepTemporaryFiles } from "../../src/store/index.ts";
import { MemoryDisk } from "../support/memory-disk.ts";
import { everyPowerLoss } from "../support/power-loss.ts";
import { seededRandom } from "../support/random.ts";

interface Counter {
  readonly count: number;
  /** Makes the file longer than a sector. */
  readonly filler: string;
}

const schema: StateSchema<Counter> = {
  kind: "counter",
  migrations: [],
  decode: (field) => ({ count: field.field("count").integer(), filler: field.field("filler").string() }),
};

const PATH = "/state/counter.json";
const counter = (count: number): Counter => ({ count, filler: `${count} `.repeat(1_400 + 137 * count) });

async function preparedDisk(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await disk.makeDirectory("/state", 0o700);
  await disk.syncDirectory("/");
  return disk;
}

/** The count in the file; 0 stands for no file. */
async function countOn(disk: MemoryDisk): Promise<number> {
  try {
    return (await new StateFile(PATH, schema, disk).read()).count;
  } catch (error) {
    if (error instanceof BelljarError && error.reason === "STATE_MISSING") return 0;
    throw error;
  }
}

describe("state file: power loss", () => {
  it("write, replace, update, remove, write: the acknowledged state or the next", async () => {
    const counts = [1, 2, 3, 0, 4];
    const report = await everyPowerLoss({
      prepare: preparedDisk,
      newHistory: () => ({ acknowledged: 0 }),
      run: async (disk, history) => {
        const file = new StateFile(PATH, schema, disk);
        for (const count of counts) {
          if (count === 0) await file.remove();
          else if (count === 3) await file.update(() => counter(3));
          else await file.write(counter(count));
          history.acknowledged += 1;
        }
      },
      check: async (found, history) => {
        const allowed = [0, ...counts].slice(history.acknowledged, history.acknowledged + 2);
        const count = await countOn(found);
        assert.ok(allowed.includes(count), `found ${count}, not one of ${allowed}`);
        await new StateFile(PATH, schema, found).write(counter(9));
        assert.equal(await countOn(found.afterPowerLoss(() => 0)), 9);
      },
    });
    assert.ok(report.combinations > 2_000, `only ${report.combinations} combinations`);
  });

  it("survives one power loss after another, in random histories", async () => {
    for (let seed = 1; seed <= 150; seed += 1) {
      const random = seededRandom(seed);
      let disk = await preparedDisk();
      let allowed = [0];
      for (let life = 0; life < 8; life += 1) {
        const count = await countOn(disk);
        assert.ok(allowed.includes(count), `seed ${seed}, life ${life}: found ${count}, not one of ${allowed}`);
        let acknowledged = count;
        const file = new StateFile(PATH, schema, disk);
        disk.powerLossAfter = disk.operations.length + random.below(30);
        allowed = [acknowledged];
        try {
          await sweepTemporaryFiles("/state", disk);
          for (;;) {
            const next = random.below(5) === 0 ? 0 : acknowledged + 1;
            allowed = [acknowledged, next];
            await (next === 0 ? file.remove() : file.write(counter(next)));
            acknowledged = next;
          }
        } catch {
          // The power went; what the next life finds decides.
        }
        disk = disk.afterPowerLoss((choices) => random.below(choices));
      }
    }
  });
});

describe("state file: failures of the disk", () => {
  const reasons: readonly (readonly [string, ErrorReason])[] = [
    ["ENOSPC", "DISK_FULL"],
    ["EDQUOT", "DISK_FULL"],
    ["EIO", "DISK_FAILED"],
    ["EROFS", "READ_ONLY"],
    ["EACCES", "PERMISSION_DENIED"],
  ];
  for (const [errno, reason] of reasons) {
    it(`${errno} at every operation of write and remove is ${reason}, and the value stays the file's`, async () => {
      for (const act of ["write", "remove"] as const) {
        for (let at = 0; ; at += 1) {
          const disk = await preparedDisk();
          const file = new StateFile(PATH, schema, disk);
          await file.write(counter(1));
          disk.fault = { at: disk.operations.length + at, errno };
          try {
            await (act === "write" ? file.write(counter(2)) : file.remove());
            assert.ok(at >= (act === "write" ? 6 : 2));
            break;
          } catch (error) {
            assert.ok(error instanceof BelljarError);
            assert.equal(error.reason, reason);
            assert.equal(error.facts["file"], PATH);
          }
          disk.fault = undefined;
          const lastStep = (disk.operations[disk.operations.length - 2] ?? "").startsWith("syncDirectory");
          const now = lastStep ? (act === "write" ? 2 : 0) : 1;
          assert.equal(await countOn(disk), now);
          assert.equal(file.value?.count ?? 0, now, "in memory");
          assert.deepEqual(await disk.list("/state"), now === 0 ? [] : ["counter.json"]);
          const failedSequence = file.sequence;
          await file.write(counter(3));
          assert.ok(file.sequence > failedSequence);
          assert.equal(await countOn(disk.afterPowerLoss(() => 0)), 3);
        }
      }
    });
  }

  it("does not know its value after a failure behind which the file cannot be read either, and says so on use", async () => {
    const disk = await preparedDisk();
    const file = new StateFile(PATH, schema, disk);
    await file.write(counter(1));
    disk.fault = { at: disk.operations.length, errno: "EIO", persistent: true };
    const { operations } = disk;
    const reading = disk.read.bind(disk);
    disk.read = async () => {
      operations.push("read that fails");
      throw Object.assign(new Error("EIO"), { code: "EIO" });
    };
    await assert.rejects(file.write(counter(2)), { reason: "DISK_FAILED" });
    assert.equal(file.value, undefined);
    await assert.rejects(file.read(), { reason: "DISK_FAILED" });
    disk.fault = undefined;
    disk.read = reading;
    assert.equal((await file.read()).count, 1);
  });
});
