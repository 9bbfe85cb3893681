/** The journal against power loss and failures of the disk: every acknowledged intent is found, with its noted steps. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BelljarError } from "../../src/base/index.ts";
import { type Intent, Journal } from "../../src/store/index.ts";
import { MemoryDisk } from "../support/memory-disk.ts";
import { everyPowerLoss } from "../support/power-loss.ts";
import { seededRandom } from "../support/random.ts";

const PATH = "/state/journal";
/** Longer than a sector, so that a record can be torn. */
const LONG = "x".repeat(1_100);

async function preparedDisk(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  await disk.makeDirectory("/state", 0o700);
  await disk.syncDirectory("/");
  return disk;
}

const spelled = (intents: readonly Intent[]): string =>
  intents.map((intent) => `${intent.operation}(${intent.steps.map((step) => step.step)})`).join(" ");

async function unfinishedOn(disk: MemoryDisk): Promise<string> {
  return spelled((await Journal.open(PATH, disk)).unfinished);
}

/** The acts of the scenario, each with what a reader finds once it is acknowledged. */
const acts: readonly (readonly [string, (journal: Journal, open: Map<string, Intent>) => Promise<unknown>])[] = [
  ["create()", async (journal, open) => open.set("create", await journal.begin("create", { container: "a" }))],
  ["create(disk)", (_, open) => intent(open, "create").note("disk", { long: LONG })],
  [
    "create(disk) exec()",
    async (journal, open) => open.set("exec", await journal.begin("exec", { long: LONG, tty: true, uid: 0 })),
  ],
  ["create(disk,mount) exec()", (_, open) => intent(open, "create").note("mount")],
  ["exec()", (_, open) => intent(open, "create").commit()],
  ["exec() stop()", async (journal, open) => open.set("stop", await journal.begin("stop"))],
  ["stop()", (_, open) => intent(open, "exec").commit()],
  ["", (_, open) => intent(open, "stop").commit()],
  ["delete()", async (journal, open) => open.set("delete", await journal.begin("delete"))],
];

function intent(open: ReadonlyMap<string, Intent>, operation: string): Intent {
  const found = open.get(operation);
  assert.ok(found);
  return found;
}

describe("journal: power loss", () => {
  it("finds what was acknowledged, or that and the next record", async () => {
    const report = await everyPowerLoss({
      prepare: preparedDisk,
      newHistory: () => ({ acknowledged: 0 }),
      run: async (disk, history) => {
        const journal = await Journal.open(PATH, disk);
        const open = new Map<string, Intent>();
        for (const [, act] of acts) {
          await act(journal, open);
          history.acknowledged += 1;
        }
      },
      check: async (found, history) => {
        const states = ["", ...acts.map(([state]) => state)];
        const allowed = states.slice(history.acknowledged, history.acknowledged + 2);
        const state = await unfinishedOn(found);
        assert.ok(allowed.includes(state), `found ${JSON.stringify(state)}, not one of ${JSON.stringify(allowed)}`);

        // The next process adds to it, even behind a torn line, and ends all of it.
        const journal = await Journal.open(PATH, found);
        const begun = await journal.begin("recover");
        const after = found.afterPowerLoss(() => 0);
        assert.equal(await unfinishedOn(after), [state, "recover()"].join(" ").trim());
        for (const left of [...journal.unfinished, begun]) await left.commit();
        assert.equal(await unfinishedOn(found.afterPowerLoss(() => 0)), "");
      },
    });
    assert.ok(report.combinations > 100, `only ${report.combinations} combinations`);
  });
});

describe("journal: power loss, again and again", () => {
  it("loses no acknowledged intent and keeps no ended one, in random histories", async () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const random = seededRandom(seed);
      let disk = await preparedDisk();
      let allowed = [""];
      for (let life = 0; life < 8; life += 1) {
        const state = await unfinishedOn(disk);
        assert.ok(allowed.includes(state), `seed ${seed}, life ${life}: found ${state}, not one of ${allowed}`);
        disk.powerLossAfter = disk.operations.length + random.below(40);
        allowed = [state];
        try {
          const journal = await Journal.open(PATH, disk);
          let intents = [...journal.unfinished];
          for (let serial = 0; ; serial += 1) {
            const before = spelled(intents);
            const chosen = intents[random.below(intents.length + 2)];
            if (chosen === undefined) {
              const operation = `operation-${life}-${serial}`;
              allowed = [before, [before, `${operation}()`].join(" ").trim()];
              intents.push(await journal.begin(operation, { long: LONG.slice(random.below(LONG.length)) }));
            } else if (random.below(2) === 0) {
              const steps = [...chosen.steps.map(({ step }) => step), "next"];
              const after = intents.map((each) => (each === chosen ? `${each.operation}(${steps})` : spelled([each])));
              allowed = [before, after.join(" ")];
              await chosen.note("next", { long: LONG.slice(random.below(LONG.length)) });
            } else {
              const rest = intents.filter((each) => each !== chosen);
              allowed = [before, spelled(rest)];
              await chosen.commit();
              intents = rest;
            }
            allowed = [spelled(intents)];
          }
        } catch (error) {
          assert.ok(BelljarError.from(error).reason === "INTERNAL", "only the loss of power ends a life");
        }
        disk = disk.afterPowerLoss((choices) => random.below(choices));
      }
    }
  });
});

describe("journal: failures of the disk", () => {
  for (const errno of ["ENOSPC", "EIO", "EROFS"]) {
    it(`${errno} at every operation: said, and the next record is whole`, async () => {
      for (let at = 0; ; at += 1) {
        const disk = await preparedDisk();
        const journal = await Journal.open(PATH, disk);
        const open = new Map<string, Intent>();
        disk.fault = { at: disk.operations.length + at, errno };
        let failures = 0;
        for (const [state, act] of acts) {
          try {
            await act(journal, open);
          } catch (error) {
            failures += 1;
            assert.ok(error instanceof BelljarError);
            assert.notEqual(error.reason, "INTERNAL");
            // A second try of the same act finds the disk working again.
            await act(journal, open);
          }
          assert.equal(await unfinishedOn(disk.afterPowerLoss(() => 0)), state);
        }
        disk.fault = undefined;
        assert.deepEqual(await disk.list("/state"), ["journal"]);
        if (failures === 0) {
          assert.ok(at > 30, `only ${at} operations`);
          break;
        }
      }
    });
  }
});
