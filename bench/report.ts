/** What was measured, on what: a table for people, JSON and a plot in bench/out/. */
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { cpus, release } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Field, parseJson } from "../src/base/index.ts";
import { type Measurement, type Summary, summarise, units } from "./measure.ts";
import { drawBars } from "./plot.ts";

const run = promisify(execFile);
const outDir = join(import.meta.dirname, "out");

export interface ReportOptions {
  readonly acceleration: string;
  readonly repository: string;
  /** Keep what an earlier run of the same commit has measured, but for what this one has measured again. */
  readonly add: boolean;
}

export interface Report {
  readonly title: string;
  readonly summaries: readonly Summary[];
}

export async function save(
  measured: readonly Measurement[],
  { acceleration, repository, add }: ReportOptions,
): Promise<Report> {
  const host = {
    acceleration,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    kernel: release(),
    node: process.version,
    commit: (await run("git", ["-C", repository, "rev-parse", "--short", "HEAD"])).stdout.trim(),
    package: parseJson(await readFile(join(repository, "package.json"), "utf8"), "package.json", "INTERNAL")
      .field("version")
      .string(),
    measuredAt: new Date().toISOString(),
  };
  const path = join(outDir, "bench.json");
  const names = new Set(measured.map(({ name }) => name));
  const earlier = add ? await readEarlier(path, host.commit) : [];
  const measurements = [...earlier.filter(({ name }) => !names.has(name)), ...measured];
  const summaries = measurements.map(summarise);
  await mkdir(outDir, { recursive: true });
  await writeFile(path, `${JSON.stringify({ host, summaries, measurements }, undefined, 2)}\n`);
  const title = `Belljar ${host.package} (${host.commit}) under ${acceleration}; ${host.cores} cores, ${host.cpu}, Linux ${host.kernel}`;
  await writeFile(join(outDir, "bench.svg"), drawBars(title, summaries));
  return { title, summaries };
}

export function print({ title, summaries }: Report): void {
  const width = Math.max(...summaries.map((each) => each.name.length));
  process.stdout.write(`${title}\n`);
  process.stdout.write(`${"".padEnd(width)}   median      p95      min      max    n\n`);
  for (const each of summaries) {
    const cells = [each.median, each.p95, each.min, each.max].map((value) => String(value).padStart(9)).join("");
    process.stdout.write(`${each.name.padEnd(width)}${cells} ${String(each.n).padStart(4)}  ${each.unit}\n`);
  }
  process.stdout.write(`Written: bench/out/bench.json, bench/out/bench.svg\n`);
}

async function readEarlier(path: string, commit: string): Promise<Measurement[]> {
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return [];
  const found = parseJson(text, path, "INTERNAL");
  if (found.field("host").field("commit").string() !== commit) return [];
  return found.field("measurements").array(
    (each: Field): Measurement => ({
      name: each.field("name").string(),
      unit: each.field("unit").oneOf(units),
      values: each.field("values").array((value) => value.number()),
    }),
  );
}
