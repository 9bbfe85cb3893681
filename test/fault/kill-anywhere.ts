/**
 * `kill-anywhere.ts [--points all|none|N] [--random N] [--seed N] [--operations a,b] [--part 1/1] [--from 1] [--json FILE]`: the whole
 * campaign, by hand; or every so many points of it, so that several runs together have all; or from the point on where an earlier run
 * ended. Takes hours without KVM, since whatever makes or starts a sandbox boots a VM for each point.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runInOwnPlace } from "../support/own-place.ts";
import { seededRandom } from "../support/random.ts";
import { Campaign, type Kill, RECOVERY_LIMIT_MS } from "./campaign.ts";
import { scenarios } from "./kill-points.ts";

const { values } = parseArgs({
  options: {
    points: { type: "string", default: "all" },
    random: { type: "string", default: "300" },
    seed: { type: "string", default: "1" },
    operations: { type: "string", default: scenarios.map(({ operation }) => operation).join(",") },
    part: { type: "string", default: "1/1" },
    from: { type: "string", default: "1" },
    json: { type: "string" },
  },
});
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const { dir, testId } = await runInOwnPlace("ka-");
const place = { testId, dir, rootDir: join(dir, "root"), runDir: join(dir, "run") };
await mkdir(place.rootDir);
if (!/^[1-9][0-9]*$/.test(values.from)) throw new Error(`--from ${values.from} is not the number of a point`);
const random = seededRandom(Number(values.seed));
const campaign = new Campaign(
  place,
  (line) => say(`${new Date().toISOString().slice(11, 19)} ${line}`),
  RECOVERY_LIMIT_MS,
);
const points: Record<string, number> = {};
try {
  await campaign.begin();
  const chosen = values.operations.split(",");
  for (const scenario of scenarios.filter(({ operation }) => values.points !== "none" && chosen.includes(operation))) {
    const found = await campaign.list(scenario);
    points[scenario.operation] = found.length;
    say(`${scenario.operation}: ${found.length} points`);
    const [part = 1, parts = 1] = values.part.split("/").map(Number);
    const own = found.filter((_, index) => index + 1 >= Number(values.from) && index % parts === part - 1);
    const count = values.points === "all" ? own.length : Math.min(Number(values.points), own.length);
    const wanted = values.points === "all" ? own : pick(own, count);
    for (const point of wanted) await campaign.killAt(scenario, point);
  }
  if (Number(values.random) > 0) await campaign.killUnderLoad(random, Number(values.random));
  const left = await campaign.end();
  for (const line of left) say(`left behind at the end: ${line}`);
  process.exitCode = summarise(campaign.kills) && left.length === 0 ? 0 : 1;
} finally {
  await campaign.abandon();
  if (values.json !== undefined) {
    const { kills, witnessCount } = campaign;
    await writeFile(
      values.json,
      `${JSON.stringify({ seed: values.seed, points, witnessCount, kills }, undefined, 1)}\n`,
    );
  }
}

function pick<T>(items: readonly T[], count: number): T[] {
  const rest = [...items];
  return Array.from({ length: count }, () => rest.splice(random.below(rest.length), 1)).flat();
}

function summarise(kills: readonly Kill[]): boolean {
  const line = (cells: readonly (string | number)[]): void =>
    say(cells.map((cell, index) => (index === 0 ? String(cell).padEnd(18) : String(cell).padStart(12))).join(""));
  line(["operation", "kills", "not reached", "failed", "median ms", "longest ms"]);
  const names = [...new Set(kills.map(({ scenario }) => scenario))];
  for (const name of [...names, "all"]) {
    const own = kills.filter(({ scenario }) => name === "all" || scenario === name);
    const times = own.map(({ recoveryMs }) => recoveryMs).toSorted((a, b) => a - b);
    const missed = own.filter(({ hit }) => !hit).length;
    const failed = own.filter(({ problems }) => problems.length > 0).length;
    line([name, own.length - missed, missed, failed, times[Math.floor(times.length / 2)] ?? 0, times.at(-1) ?? 0]);
  }
  return kills.every(({ problems }) => problems.length === 0);
}
