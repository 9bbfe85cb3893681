/** What a kill of the owner may not have changed: a witness that counts, and a host on which everything belongs to somebody. */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Field } from "../../src/base/index.ts";
import { findLeaks, networkObjects } from "../support/leaks.ts";
import type { OwnerProcess } from "./owner-process.ts";

export interface Place {
  readonly testId: string;
  /** Above all the others. */
  readonly dir: string;
  readonly rootDir: string;
  readonly runDir: string;
}

export interface FoundSandbox {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly vmmPid: number | undefined;
  readonly memoryMib: number;
  readonly problem: string | undefined;
  readonly containers: readonly { readonly id: string; readonly name: string; readonly state: string }[];
  /** Beside the containers' own disks. */
  readonly devices: readonly { readonly id: string; readonly backEndPid: number | undefined }[];
}

export async function listSandboxes(owner: OwnerProcess): Promise<FoundSandbox[]> {
  const answer = await owner.ask({ do: "list" });
  return answer.field("sandboxes").array((sandbox) => ({
    id: sandbox.field("id").string(),
    name: sandbox.field("name").string(),
    state: sandbox.field("state").string(),
    vmmPid: sandbox.field("vmm").optional((vmm) => vmm.field("pid").integer()),
    memoryMib: sandbox.field("memoryMib").integer(),
    problem: sandbox.field("problem").optional((text) => text.string()),
    containers: sandbox.field("containers").array((container) => ({
      id: container.field("id").string(),
      name: container.field("name").string(),
      state: container.field("state").string(),
    })),
    devices: sandbox
      .field("devices")
      .array((device) => ({
        id: device.field("id").string(),
        backEndPid: device.field("backEndPid").optional((pid) => pid.integer()),
        isContainers: device.field("isContainers").boolean(),
      }))
      .filter(({ isContainers }) => !isContainers),
  }));
}

/** The numbers that a process counts, read on from where the last reading ended. */
export class Counter {
  readonly #sandbox: string;
  #offset = "0";
  #next = 0;
  #partial = "";

  constructor(sandbox: string) {
    this.#sandbox = sandbox;
  }

  get count(): number {
    return this.#next;
  }

  /** What is wrong with what came since the last time: bytes lost, a number left out or repeated, or none at all. */
  async check(owner: OwnerProcess): Promise<string[]> {
    const before = this.#next;
    const problems = this.#take(
      await owner.ask({ do: "read", sandbox: this.#sandbox, offset: this.#offset, waitMs: 5_000 }),
    );
    if (this.#next === before) problems.push(`${this.#sandbox} counted no further than ${before}`);
    return problems;
  }

  #take(answer: Field): string[] {
    const problems: string[] = [];
    const lost = answer.field("lost").string();
    if (lost !== "0") problems.push(`${this.#sandbox} lost ${lost} bytes after offset ${this.#offset}`);
    this.#offset = answer.field("next").string();
    const text = answer.field("text").string({ maxLength: Number.MAX_SAFE_INTEGER });
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop() ?? "";
    for (const line of lines) {
      if (line !== String(this.#next) && problems.length < 3) {
        problems.push(`${this.#sandbox} wrote ${JSON.stringify(line.slice(0, 40))} where ${this.#next} was due`);
      }
      this.#next = Number.parseInt(line, 10) + 1;
    }
    return problems;
  }
}

/** What ends by itself when its owner has been killed (a tool of the host that was at work) may take so long. */
const GRACE_MS = 3_000;

/** Processes, sockets and files that belong to no sandbox. */
export async function findOrphans(
  place: Place,
  sandboxes: readonly FoundSandbox[],
  ownerPid: number,
): Promise<string[]> {
  const untilMs = performance.now() + GRACE_MS;
  for (;;) {
    const orphans = [...(await orphanProcesses(place, sandboxes, ownerPid)), ...(await orphanFiles(place, sandboxes))];
    if (orphans.length === 0 || performance.now() > untilMs) return orphans;
    await sleep(100);
  }
}

async function orphanProcesses(place: Place, sandboxes: readonly FoundSandbox[], ownerPid: number): Promise<string[]> {
  const { testId, dir, runDir } = place;
  const key = createHash("sha256").update(place.rootDir).digest("hex").slice(0, 8);
  const before = new Set([...(await networkObjects())].filter((name) => !name.includes(key)));
  const leaks = await findLeaks({ testId, dir, before });
  const live = sandboxes.filter(({ vmmPid }) => vmmPid !== undefined);
  const pids = live.flatMap(({ vmmPid, devices }) => [vmmPid, ...devices.map(({ backEndPid }) => backEndPid)]);
  const owned = [ownerPid, ...pids].map((pid) => `process ${pid}:`);
  const homes = live.map(({ id }) => join(runDir, id));
  const namespaces = new Set(live.map(({ id }) => `belljar-${key}-${id}`));
  owned.push(...(await uplinksOf(namespaces, leaks)));
  return leaks.filter(
    (leak) =>
      !owned.some((start) => leak.startsWith(start)) &&
      !homes.some((home) => leak.startsWith(`socket ${home}/`)) &&
      !namespaces.has(leak.replace("namespace ", "")) &&
      !live.some(({ id }) => leak.startsWith("cgroup ") && leak.endsWith(`/${id}`)),
  );
}

/** Beginnings of the lines for the programs behind these networks: one for each, another one is nobody's. */
async function uplinksOf(namespaces: ReadonlySet<string>, leaks: readonly string[]): Promise<string[]> {
  const found = new Map<string, string>();
  for (const leak of leaks) {
    const [start, pid] = /^process (\d+): (?=slirp4netns )/.exec(leak) ?? [];
    if (start === undefined || pid === undefined) continue;
    const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    const namespace = words.map((word) => basename(word)).find((name) => namespaces.has(name));
    if (namespace !== undefined && !found.has(namespace)) found.set(namespace, start);
  }
  return [...found.values()];
}

const ROOT_NAMES = new Set(["cache", "checkpoints", "events", "images", "lock", "sandboxes", "templates", "volumes"]);

const DIGEST = /^[0-9a-f]{64}$/;

async function orphanFiles(place: Place, sandboxes: readonly FoundSandbox[]): Promise<string[]> {
  const orphans: string[] = [];
  const compare = async (dir: string, allowed: (name: string) => boolean): Promise<void> => {
    for (const name of await readdir(dir).catch(() => [])) if (!allowed(name)) orphans.push(`file ${join(dir, name)}`);
  };
  const ids = new Set(sandboxes.map(({ id }) => id));
  const live = new Set(sandboxes.flatMap(({ id, vmmPid }) => (vmmPid === undefined ? [] : [id])));
  await compare(place.runDir, (name) => live.has(name));
  await compare(join(place.rootDir, "sandboxes"), (name) => ids.has(name));
  await compare(place.rootDir, (name) => ROOT_NAMES.has(name));
  // Half made or half removed.
  await compare(join(place.rootDir, "volumes"), (name) => !name.startsWith("."));
  await compare(join(place.rootDir, "checkpoints"), (name) => !name.startsWith("."));
  await compare(join(place.rootDir, "images/staging"), () => false);
  const templates = join(place.rootDir, "templates");
  await compare(templates, (name) => name === "lock" || DIGEST.test(name));
  for (const name of (await readdir(templates).catch(() => [])).filter((each) => DIGEST.test(each))) {
    const found = (await readdir(join(templates, name))).sort().join(" ");
    if (found !== "devices manifest.json memory") orphans.push(`template ${name} of ${found}`);
  }
  for (const { id, containers } of sandboxes) {
    const dir = join(place.rootDir, "sandboxes", id);
    const belongs = (name: string): boolean => containers.some((container) => name.includes(container.id));
    await compare(dir, (name) => ["sandbox.json", "lock", "disks", "logs", "memory"].includes(name));
    // What qcow2 disks lie over is linked into the directory of each sandbox.
    await compare(join(dir, "disks"), (name) => belongs(name) || /^blank-\d+\.raw$/.test(name));
    await compare(join(dir, "logs"), belongs);
  }
  return orphans;
}
