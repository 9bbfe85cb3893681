/**
 * A sample of the campaign that kills the owner at every step (docs/internals/fault-model.md), in real VMs. BELLJAR_SEED chooses
 * another sample.
 */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Campaign } from "../fault/campaign.ts";
import { scenarios } from "../fault/kill-points.ts";
import type { KillPoint, OperationName } from "../programs/owner-commands.ts";
import { test } from "../support/harness.ts";
import { seededRandom } from "../support/random.ts";

/** Those whose points need no new VM each. */
const sampled = ["exec", "pause", "resume", "create container", "stop container", "grow"];
const POINTS_EACH = 2;
/** Where each of these dies once: to learn all their points, a guest would have to be frozen and one more made to wait. */
const chosen: Readonly<Partial<Record<OperationName, readonly KillPoint[]>>> = {
  "make boot template": [
    { step: "agent execProcess", occurrence: 1, phase: "during" },
    { step: "child fallocate", occurrence: 1, phase: "during" },
    { step: "child qemu", occurrence: 2, phase: "after" },
    { step: "store open .manifest.json.belljar-tmp-*", occurrence: 1, phase: "after" },
    { step: "store rename *", occurrence: 2, phase: "before" },
  ],
  "fill pool": [
    { step: "agent hello", occurrence: 2, phase: "before" },
    { step: "child qemu", occurrence: 2, phase: "during" },
    { step: "agent removeContainer", occurrence: 1, phase: "before" },
  ],
  "take waiting VM": [
    { step: "store rename *", occurrence: 1, phase: "before" },
    { step: "child sh", occurrence: 1, phase: "during" },
  ],
  "fill spares": [{ step: "child qemu", occurrence: 2, phase: "after" }],
  "take spare": [{ step: "qmp device_add", occurrence: 1, phase: "during" }],
  "fill standbys": [
    { step: "child qemu", occurrence: 2, phase: "after" },
    { step: "qmp stop", occurrence: 1, phase: "during" },
  ],
  "take standby": [
    { step: "agent thaw", occurrence: 1, phase: "during" },
    { step: "store rename *", occurrence: 1, phase: "before" },
  ],
};
const RANDOM_KILLS = 2;

test("an owner that is killed anywhere is followed by one that goes on", async (t) => {
  const seed = Number(process.env["BELLJAR_SEED"] ?? 1);
  const random = seededRandom(seed);
  const place = { testId: t.testId, dir: t.dir, rootDir: join(t.dir, "root"), runDir: join(t.dir, "run") };
  await mkdir(place.rootDir);
  const campaign = new Campaign(place, (line) => t.diagnostic(line));
  t.after(() => campaign.abandon());
  await campaign.begin();
  for (const scenario of scenarios.filter(({ operation }) => sampled.includes(operation))) {
    const points = await campaign.list(scenario);
    for (let count = 0; count < POINTS_EACH; count += 1) {
      const [point] = points.splice(random.below(points.length), 1);
      if (point !== undefined) await campaign.killAt(scenario, point);
    }
  }
  for (const scenario of scenarios) {
    const points = chosen[scenario.operation] ?? [];
    const point = points[random.below(points.length)];
    if (point === undefined) continue;
    const { hit } = await campaign.killAt(scenario, point);
    assert.ok(hit, `${scenario.operation} does not come by ${point.step} any more`);
  }
  await campaign.killUnderLoad(random, RANDOM_KILLS);
  const failed = campaign.kills.filter(({ problems }) => problems.length > 0);
  assert.deepEqual(failed, [], `seed ${seed}`);
  assert.deepEqual(await campaign.end(), []);
});
