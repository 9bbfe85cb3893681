/**
 * `soak.ts [--minutes N] [--json FILE]`: sandboxes come and go for an hour, their owner is killed again and again, and what the owner
 * uses must not grow. Run by hand, once for a release.
 *
 * Two roots take turns. In the first one the owner dies in every round: create, exec, pause, SIGKILL, recover, resume, exec,
 * delete. In the second one process does the same for the whole time without being killed, so that what it keeps adds up.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { OwnerProcess } from "../fault/owner-process.ts";
import { findOrphans, listSandboxes, type Place } from "../fault/world.ts";
import { COUNTER, type OperationName, TARGET } from "../programs/owner-commands.ts";
import { endLeaks } from "../support/leaks.ts";
import { runInOwnPlace } from "../support/own-place.ts";
import { growth, type Sample } from "./growth.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "60" }, json: { type: "string" } },
});
const say = (line: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);
const { dir } = await runInOwnPlace("so-");

class Root {
  readonly samples: Sample[] = [];
  readonly name: string;
  readonly place: Place;
  owner: OwnerProcess | undefined;

  constructor(name: string) {
    this.name = name;
    const home = join(dir, name);
    const testId = randomBytes(8).toString("hex");
    this.place = { testId, dir: home, rootDir: join(home, "root"), runDir: join(home, "run") };
  }

  async open(): Promise<{ owner: OwnerProcess; recoveryMs: number }> {
    if (this.owner?.hasEnded === false) return { owner: this.owner, recoveryMs: 0 };
    const { rootDir, runDir, testId } = this.place;
    const environment = { BELLJAR_TEST_ID: testId };
    // The collector runs before each sample: what is counted is what is kept.
    const owner = new OwnerProcess({ rootDir, runDir, environment, nodeOptions: ["--expose-gc"] });
    this.owner = owner;
    const answer = await owner.ask({ do: "open" });
    return { owner, recoveryMs: Math.round(answer.field("tookMs").number()) };
  }

  async round(isKilled: boolean): Promise<void> {
    let { owner } = await this.open();
    const operate = (operation: OperationName): Promise<unknown> =>
      owner.ask({ do: "operate", operation, kill: undefined });
    const exec = async (): Promise<void> => {
      const answer = await owner.ask({ do: "exec", sandbox: TARGET, command: ["echo", "alive"] });
      if (answer.field("stdout").string() !== "alive\n") throw new Error("a command's output is wrong");
    };
    await owner.ask({ do: "prepare", base: "running", command: COUNTER });
    await exec();
    await operate("pause");
    let recoveryMs = 0;
    if (isKilled) {
      await owner.kill();
      ({ owner, recoveryMs } = await this.open());
      const [target, ...others] = await listSandboxes(owner);
      if (target?.state !== "paused" || others.length > 0) throw new Error(`recovered as ${target?.state}`);
    }
    await operate("resume");
    await exec();
    await operate("pause");
    await operate("delete");
    const orphans = await findOrphans(this.place, [], owner.pid);
    if (orphans.length > 0) throw new Error(`left behind: ${orphans.join("; ")}`);
    this.samples.push(await this.#sample(owner, recoveryMs));
  }

  async #sample(owner: OwnerProcess, recoveryMs: number): Promise<Sample> {
    const usage = await owner.ask({ do: "usage" });
    const number = (name: string): number => usage.field(name).integer({ min: 0 });
    const children = await readdir("/proc");
    return {
      residentBytes: number("rss"),
      heapBytes: number("heapUsed"),
      externalBytes: number("external"),
      descriptors: number("descriptors"),
      resources: number("resources"),
      // Of the whole host: whatever is left behind by anybody shows.
      processes: children.filter((name) => /^\d+$/.test(name)).length,
      files: (await readdir(this.place.dir, { recursive: true })).length,
      recoveryMs,
    };
  }
}

const roots = { killed: new Root("k"), kept: new Root("l") };
for (const { place } of Object.values(roots)) await mkdir(place.rootDir, { recursive: true });
const abandon = async (): Promise<void> => {
  for (const root of Object.values(roots)) {
    await root.owner?.kill();
    await endLeaks(root.place);
  }
};

const untilMs = performance.now() + Number(values.minutes) * 60_000;
let failure: unknown;
try {
  for (let round = 1; performance.now() < untilMs; round += 1) {
    await roots.killed.round(true);
    await roots.kept.round(false);
    const last = { killed: roots.killed.samples.at(-1), kept: roots.kept.samples.at(-1) };
    say(`round ${round}: ${JSON.stringify(last)}`);
    if (values.json !== undefined) await writeReport(values.json);
  }
} catch (error) {
  failure = error;
  say(`failed: ${String(error)}`);
  for (const { name, owner } of Object.values(roots)) say(`log of ${name}:\n${owner?.log ?? ""}`);
}
await abandon();
const grown = Object.entries(roots).flatMap(([name, { samples }]) =>
  growth(samples).map(({ text, isTooMuch }) => {
    say(`${name}: ${text}${isTooMuch ? "  GROWS" : ""}`);
    return isTooMuch;
  }),
);
const longest = Math.max(0, ...roots.killed.samples.map(({ recoveryMs }) => recoveryMs));
say(`${roots.killed.samples.length} rounds in each root, longest recovery ${longest} ms`);
process.exitCode = failure === undefined && !grown.includes(true) ? 0 : 1;

async function writeReport(path: string): Promise<void> {
  const report = Object.fromEntries(Object.entries(roots).map(([name, { samples }]) => [name, samples]));
  await writeFile(path, `${JSON.stringify(report)}\n`);
}
