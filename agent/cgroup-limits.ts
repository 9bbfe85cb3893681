/**
 * What a container may use, changed while it runs: files of its control group. All or nothing: when one of them cannot be set,
 * those set before get their old values back.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError } from "../src/base/errors.ts";
import { parseCounts, readOrNothing, setFile } from "./cgroup-files.ts";
import { asObject, type JsonObject } from "./spec.ts";

/** Absent: stays as it is. */
export interface LimitChanges {
  /** 0 takes the limit away. */
  readonly memoryBytes?: bigint | undefined;
  /** 0 takes the limit away. */
  readonly cpuQuotaUs?: bigint | undefined;
  readonly cpuPeriodUs?: bigint | undefined;
  readonly cpuWeight?: number | undefined;
  readonly cpuset?: string | undefined;
  /** 0 takes the limit away. */
  readonly pids?: number | undefined;
}

const POSSIBLE_CPUS = "/sys/devices/system/cpu/possible";

/** What the kernel has where nobody says otherwise. */
const PERIOD_DEFAULT_US = 100_000n;

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkLimits(changes: LimitChanges): void {
  const { cpuQuotaUs, cpuPeriodUs, cpuWeight, cpuset } = changes;
  const refuse = (what: string): never => {
    throw new BelljarError("INVALID_ARGUMENT", what);
  };
  if (cpuWeight !== undefined && (cpuWeight < 1 || cpuWeight > 10_000)) refuse(`there is no CPU weight ${cpuWeight}`);
  if (cpuPeriodUs !== undefined && (cpuPeriodUs < 1_000n || cpuPeriodUs > 1_000_000n)) {
    refuse(`a CPU period of ${cpuPeriodUs} µs is not between 1000 and 1000000`);
  }
  if (cpuQuotaUs !== undefined && cpuQuotaUs !== 0n && cpuQuotaUs < 1_000n) {
    refuse(`a CPU quota of ${cpuQuotaUs} µs is below 1000`);
  }
  if (cpuset !== undefined && !/^[0-9,-]{0,1024}$/.test(cpuset)) refuse("the list of CPUs has an unknown form");
}

/** @param dir the group that has the limits */
export async function updateLimits(dir: string, changes: LimitChanges): Promise<void> {
  checkLimits(changes);
  await checkMemoryFits(dir, changes.memoryBytes ?? 0n);
  const undo: { readonly path: string; readonly before: string }[] = [];
  try {
    for (const [name, value] of await valuesOf(dir, changes)) {
      const path = join(dir, name);
      const before = (await readFile(path, "utf8")).trim();
      await setFile(path, value);
      undo.push({ path, before });
    }
  } catch (cause) {
    // An empty value is a list of CPUs that was never set: only a line's end, and not nothing at all, is a write.
    for (const { path, before } of undo.reverse()) await setFile(path, before === "" ? "\n" : before).catch(() => {});
    throw new BelljarError("INVALID_ARGUMENT", "the guest's kernel refuses one of the limits; none was changed", {
      cause,
    });
  }
}

/** File by file, in the order in which they are written. */
async function valuesOf(dir: string, changes: LimitChanges): Promise<readonly (readonly [string, string])[]> {
  const values: (readonly [string, string])[] = [];
  if (changes.cpuset !== undefined) {
    const isSet = (await readOrNothing(join(dir, "cpuset.cpus"))).trim() !== "";
    values.push(["cpuset.cpus", changes.cpuset === "" ? await everyCpu(isSet) : changes.cpuset]);
  }
  if (changes.cpuWeight !== undefined) values.push(["cpu.weight", String(changes.cpuWeight)]);
  if (changes.cpuQuotaUs !== undefined || changes.cpuPeriodUs !== undefined) {
    const [quota = "max", period = ""] = (await readOrNothing(join(dir, "cpu.max"))).trim().split(" ");
    const wanted = changes.cpuQuotaUs === undefined ? quota : limitWord(changes.cpuQuotaUs);
    values.push(["cpu.max", `${wanted} ${changes.cpuPeriodUs ?? (period === "" ? PERIOD_DEFAULT_US : period)}`]);
  }
  if (changes.pids !== undefined) values.push(["pids.max", limitWord(BigInt(changes.pids))]);
  // Last, since it cannot quite be undone: the kernel takes pages away at once when it is lowered.
  if (changes.memoryBytes !== undefined) values.push(["memory.max", limitWord(changes.memoryBytes)]);
  return values;
}

/** The kernel takes no list away from processes that have one; the list of all that may ever come is as good. */
async function everyCpu(isSet: boolean): Promise<string> {
  const possible = isSet ? (await readOrNothing(POSSIBLE_CPUS)).trim() : "";
  return possible === "" ? "\n" : possible;
}

function limitWord(value: bigint): string {
  return value === 0n ? "max" : String(value);
}

/** The kernel would set a limit below what is in use all the same, and kill until it fits. Caches can be let go. */
async function checkMemoryFits(dir: string, limitBytes: bigint): Promise<void> {
  if (limitBytes === 0n) return;
  const held = parseCounts(await readOrNothing(join(dir, "memory.stat")));
  const usedBytes = (held.get("anon") ?? 0n) + (held.get("shmem") ?? 0n);
  if (usedBytes <= limitBytes) return;
  throw new BelljarError(
    "INVALID_ARGUMENT",
    `the container's processes hold ${usedBytes} bytes of memory; a limit of ${limitBytes} would kill them`,
  );
}

/** The same changes in the configuration of a container that was not started yet. */
export function withLimits(spec: JsonObject, changes: LimitChanges): JsonObject {
  checkLimits(changes);
  const part = (of: JsonObject, name: string): JsonObject => asObject(of[name] ?? {}, `the configuration's ${name}`);
  const linux = part(spec, "linux");
  const resources = part(linux, "resources");
  const memory = { ...part(resources, "memory") };
  const cpu = { ...part(resources, "cpu") };
  const unified = { ...part(resources, "unified") };
  let pids = resources["pids"];
  if (changes.memoryBytes !== undefined) {
    delete unified["memory.max"];
    memory["limit"] = Number(changes.memoryBytes);
    // A limit for swap has no meaning without one for memory.
    if (changes.memoryBytes === 0n) for (const name of ["limit", "swap"]) delete memory[name];
  }
  if (changes.cpuQuotaUs !== undefined) {
    cpu["quota"] = Number(changes.cpuQuotaUs);
    if (changes.cpuQuotaUs === 0n) delete cpu["quota"];
  }
  if (changes.cpuPeriodUs !== undefined) cpu["period"] = Number(changes.cpuPeriodUs);
  if (changes.cpuQuotaUs !== undefined || changes.cpuPeriodUs !== undefined) delete unified["cpu.max"];
  if (changes.cpuset !== undefined) {
    cpu["cpus"] = changes.cpuset;
    if (changes.cpuset === "") delete cpu["cpus"];
    delete unified["cpuset.cpus"];
  }
  if (changes.cpuWeight !== undefined) {
    delete cpu["shares"];
    unified["cpu.weight"] = String(changes.cpuWeight);
  }
  if (changes.pids !== undefined) {
    pids = changes.pids === 0 ? undefined : { limit: changes.pids };
    delete unified["pids.max"];
  }
  const filled = Object.entries({ memory, cpu, unified }).filter(([, value]) => Object.keys(value).length > 0);
  const { memory: _memory, cpu: _cpu, unified: _unified, pids: _pids, ...others } = resources;
  return {
    ...spec,
    linux: {
      ...linux,
      resources: { ...others, ...Object.fromEntries(filled), ...(pids === undefined ? {} : { pids }) },
    },
  };
}
