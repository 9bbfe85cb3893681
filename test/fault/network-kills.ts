/**
 * Kills whoever makes, prepares or removes a network at every step of it, in real namespaces and without VMs, and looks at the host after the next
 * owner: nothing is left, and what is others' is as it was.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import type { Random } from "../support/random.ts";

const OWNER = join(import.meta.dirname, "../programs/networks.ts");
const ID = "00000000000a";
/** One that stays through all kills. */
const WITNESS = "00000000000b";
const NEXT = "00000000000c";

export const killedModes = ["user", "bridge", "netns"] as const;
export type KilledMode = (typeof killedModes)[number];

const prepared = ["make-prepared", "make-otherwise", "make-ahead"] as const;
const verbs = ["make", ...prepared, "give-up", "remove"] as const;

export interface NetworkPlace {
  /** Runs a command on the host of the test's own. */
  readonly within: readonly string[];
  readonly rootDir: string;
  /** Name of a namespace of somebody else's, for `netns`. */
  readonly theirs: string;
}

export interface NetworkKill {
  readonly mode: KilledMode;
  readonly verb: (typeof verbs)[number];
  readonly point: string;
  /** False: the operation did not come by this step. */
  readonly hit: boolean;
  readonly problems: readonly string[];
}

interface Ended {
  readonly killed: boolean;
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

export class NetworkKills {
  readonly kills: NetworkKill[] = [];
  readonly #place: NetworkPlace;
  /** Of the names of our namespaces. */
  #prefix = "";

  constructor(place: NetworkPlace) {
    this.#place = place;
  }

  /** The witness, on a bridge, with a port: its rules are in the same table as those of whoever is killed. */
  async begin(): Promise<void> {
    const port = { hostAddress: "0.0.0.0", hostPort: 8099, containerPort: 80, protocol: "tcp" };
    const { output } = await this.#succeed("make", WITNESS, this.#settings("bridge", [port]));
    const made: unknown = JSON.parse(output);
    if (typeof made === "object" && made !== null && "namespace" in made) {
      this.#prefix = String(made.namespace).slice(0, -WITNESS.length);
    }
  }

  /** Whatever is still there, when a test ends before its end. */
  async abandon(): Promise<void> {
    if (this.#prefix === "") return;
    for (const name of (await readdir("/run/netns")).filter((each) => each.startsWith(this.#prefix))) {
      await runTool("ip", ["netns", "delete", name]);
    }
  }

  async end(): Promise<void> {
    await this.#succeed("remove", WITNESS);
  }

  /** @param count of points of each operation; all unless told */
  async kill(mode: KilledMode, random: Random, count = Number.POSITIVE_INFINITY): Promise<void> {
    const settings = this.#settings(mode, mode === "netns" ? [] : [PORT]);
    const before = await this.#look();
    const made = await this.#succeed("make", ID, settings);
    const there = await this.#look();
    const inside = mode === "netns" ? "" : await this.#lookInside();
    const removed = await this.#succeed("remove", ID);
    if (there === before) throw new Error(`nothing was made: ${made.errors}`);
    const done = new Map<NetworkKill["verb"], Ended>([
      ["make", made],
      ["remove", removed],
    ]);
    if (mode !== "netns") {
      for (const verb of prepared) {
        done.set(verb, await this.#succeed(verb, ID, settings));
        const now = await this.#lookInside();
        if (now !== inside) throw new Error(`${verb} makes another network of ${mode}:\n${difference(inside, now)}`);
        await this.#succeed("remove", ID);
      }
      done.set("give-up", await this.#succeed("give-up", ID, settings));
    }
    for (const verb of verbs) {
      const steps = stepsOf(done.get(verb));
      const points = steps.flatMap((step) => ["before", "during", "after"].map((phase) => `${phase} ${step}`));
      while (
        points.length > 0 &&
        this.kills.filter((each) => each.mode === mode && each.verb === verb).length < count
      ) {
        const [point = ""] = points.splice(random.below(points.length), 1);
        if (verb === "remove") await this.#succeed("make", ID, settings);
        const ended = await this.#run({ KILL_AT: point.split(" ").slice(0, 2).join(" ") }, verb, ID, settings);
        const problems = await this.#lookAfter(before, settings);
        this.kills.push({ mode, verb, point, hit: ended.killed, problems });
      }
    }
  }

  /** The next owner, and what it leaves; then the same network once more. */
  async #lookAfter(before: string, settings: string): Promise<string[]> {
    const problems: string[] = [];
    const recovered = await this.#run({}, "recover");
    if (recovered.status !== 0) problems.push(`recovery failed: ${recovered.errors}`);
    // One that was killed when all was done has made it, or has only its file left.
    if ((await readdir(this.#place.rootDir)).includes(`${ID}.made`)) await this.#succeed("remove", ID);
    const after = await this.#look();
    if (after !== before) problems.push(difference(before, after));
    const again = await this.#run({}, "make", NEXT, settings);
    if (again.status !== 0) problems.push(`it could not be made again: ${again.errors}`);
    else await this.#succeed("remove", NEXT);
    return problems;
  }

  #settings(mode: KilledMode, ports: readonly object[]): string {
    const policy = { allow: [], deny: [], default: "closed" };
    const rates = { inBytesPerSecond: 1_000_000, outBytesPerSecond: 1_000_000 };
    const given = mode === "netns" ? { given: { path: `/run/netns/${this.#place.theirs}`, model: "tcfilter" } } : {};
    return JSON.stringify({ mode, ports, policy, rates, ...given });
  }

  async #succeed(verb: string, ...args: readonly string[]): Promise<Ended> {
    const ended = await this.#run({ SHOW_STEPS: "1" }, verb, ...args);
    if (ended.status !== 0) throw new Error(`${verb} failed: ${ended.errors}`);
    return ended;
  }

  async #run(environment: Readonly<Record<string, string>>, verb: string, ...args: readonly string[]): Promise<Ended> {
    const { within, rootDir } = this.#place;
    const [program = "", ...words] = [...within, process.execPath, OWNER, verb, rootDir, ...args];
    const child = spawn(program, words, { env: { ...process.env, ...environment }, stdio: ["ignore", "pipe", "pipe"] });
    let [output, errors] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    // Its tools may outlive it, and hold its output.
    const [status, signal] = await once(child, "exit");
    return { killed: signal === "SIGKILL", status, output, errors };
  }

  /** What stands between the guest and the outside, however it came to be; each has addresses of its own. */
  async #lookInside(): Promise<string> {
    const texts: string[] = [];
    for (const command of [
      "ip -4 address",
      "ip -4 route",
      "ip neighbour show nud permanent",
      "nft list ruleset",
      "tc qdisc",
    ]) {
      const words = ["nsenter", `--net=/run/netns/${this.#prefix}${ID}`, "--", ...command.split(" ")];
      const text = (await runTool(words[0] ?? "", words.slice(1))).stdout.toString();
      // The kernel lists neighbours as they lie in its table.
      texts.push(command.startsWith("ip neighbour") ? text.split("\n").sort().join("\n") : text);
    }
    const own = /(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|\b10\.\d+\.\d+\.\d+/g;
    return texts
      .join("---\n")
      .replaceAll(own, "OWN")
      .replaceAll(/packets \d+ bytes \d+|^\d+: |@if\d+| linkdown|refcnt \d+|(?<=^qdisc \w+ )\w+:/gm, "");
  }

  /** Everything on the host that could be of ours or of others. */
  async #look(): Promise<string> {
    const { within, theirs } = this.#place;
    const texts: string[] = [];
    for (const place of [within, ["nsenter", `--net=/run/netns/${theirs}`, "--"]]) {
      for (const command of ["ip -details address", "ip -4 route show table all", "nft list ruleset", "tc qdisc"]) {
        const [program = "", ...words] = [...place, ...command.split(" ")];
        texts.push((await runTool(program, words)).stdout.toString());
      }
    }
    const own = (await readdir("/run/netns")).filter((name) => [ID, NEXT].includes(name.replace(this.#prefix, "")));
    return (
      `${texts.join("---\n")}---\n${own.join(" ")}\n${await programs()}`
        // Numbers that go on, states that settle, counts of what comes by itself.
        .replaceAll(
          /^\d+: |@if\d+| tentative| linkdown| dadfailed|packets \d+ bytes \d+|refcnt \d+|bridge_id \S+|_timer +\S+/gm,
          "",
        )
    );
  }
}

const PORT = { hostAddress: "127.0.0.1", hostPort: 8098, containerPort: 80, protocol: "tcp" };

async function programs(): Promise<string> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    if (words.includes("slirp4netns") && words.some((word) => word.endsWith(ID) || word.endsWith(NEXT)))
      found.push(words.join(" "));
  }
  return found.join("\n");
}

/** None of what is not done. */
function stepsOf({ errors = "" }: Partial<Ended> = {}): string[] {
  return [...errors.matchAll(/^step (.*)$/gm)].map(([, step = ""]) => step);
}

function difference(before: string, after: string): string {
  const [one, other] = [before.split("\n"), after.split("\n")];
  const gone = one.filter((line) => !other.includes(line)).map((line) => `-${line}`);
  const left = other.filter((line) => !one.includes(line)).map((line) => `+${line}`);
  return [...gone, ...left].join("\n") || "lines in another order";
}
