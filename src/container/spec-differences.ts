/**
 * How the specification that a restored container is given differs from the one that it was saved with. It may be restored elsewhere:
 * paths of the root and of namespaces, sources of mounts, environment, host name, cgroup, hooks, device numbers and annotations are not
 * looked at, since what runs has them already or never sees them. What processes in memory rely on must be as it was. Only what is given is
 * compared.
 */
import { basename } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { BelljarError, type Decode, type Field } from "../base/index.ts";
import { buildSpec } from "./spec.ts";
import type { ContainerState } from "./state.ts";

export interface SpecDifference {
  /** Such as `process.args`. */
  readonly what: string;
  /** Told, and no obstacle: it has no effect on what runs. */
  readonly mayDiffer: boolean;
  readonly saved: string;
  readonly given: string;
}

const SHOWN_LENGTH = 200;
/** Of the whole sandbox here, whatever a container's specification says. */
const SHARED_NAMESPACES = ["network", "uts", "user", "time"];

/** @throws BelljarError `INVALID_ARGUMENT` for what is no specification */
export function compareSpec(container: ContainerState, given: Field): readonly SpecDifference[] {
  if (typeof given.raw !== "object" || given.raw === null || Array.isArray(given.raw)) {
    throw new BelljarError("INVALID_ARGUMENT", `${given.path} is no OCI specification`);
  }
  const { imageConfig, config, limits, mounts: placedMounts } = container;
  const saved = buildSpec(imageConfig, { ...config, limits, hostname: "", placedMounts });
  const found: SpecDifference[] = [];
  const compare = <T>(path: string, decode: Decode<T>, was: T, mayDiffer = false): void => {
    const is = at(given, path)?.optional(decode);
    if (is === undefined || isDeepStrictEqual(is, was)) return;
    found.push({ what: path, mayDiffer, saved: shown(was), given: shown(is) });
  };
  const { process, linux, root } = saved;
  compare("ociVersion", text, saved.ociVersion);
  compare("root.readonly", flag, root.readonly);
  compare("process.terminal", flag, process.terminal);
  compare("process.args", (field) => withProgramName(words(field)), withProgramName(process.args));
  compare("process.cwd", text, process.cwd);
  const [uid, gid] = numericUser(config.user ?? imageConfig.user);
  if (uid !== undefined) compare("process.user.uid", number, uid);
  if (gid !== undefined) compare("process.user.gid", number, gid);
  for (const set of ["bounding", "effective", "permitted"] as const) {
    compare(`process.capabilities.${set}`, sorted, [...process.capabilities[set]].sort());
  }
  compare("process.rlimits", (field) => field.array(rlimit).sort(byType), [...process.rlimits].sort(byType));
  compare("process.noNewPrivileges", flag, process.noNewPrivileges);
  compare("linux.namespaces", namespaceTypes, linux.namespaces.map(({ type }) => type).sort());
  compare("linux.sysctl", (field) => field.raw, {});
  compare("linux.seccomp", (field) => field.raw, linux.seccomp);
  const mounts = new Map(saved.mounts.map((mount) => [mount.destination, mountWords(mount)]));
  const givenMounts = given.field("mounts").optional(mountsOf) ?? mounts;
  for (const destination of new Set([...mounts.keys(), ...givenMounts.keys()])) {
    const [was = "nothing", is = "nothing"] = [mounts.get(destination), givenMounts.get(destination)];
    if (was !== is)
      found.push({ what: `mounts ${destination}`, mayDiffer: false, saved: shown(was), given: shown(is) });
  }
  const { resources } = linux;
  compare("linux.resources.memory.limit", number, resources.memory?.limit ?? 0, true);
  compare("linux.resources.pids.limit", number, resources.pids?.limit ?? 0, true);
  compare("linux.resources.cpu.quota", number, resources.cpu?.quota ?? 0, true);
  compare("linux.resources.cpu.cpus", text, resources.cpu?.cpus ?? "", true);
  return found;
}

const text: Decode<string> = (field) => field.string();
const flag: Decode<boolean> = (field) => field.boolean();
const number: Decode<number> = (field) => field.integer();
const words: Decode<string[]> = (field) => field.array(text);
const sorted: Decode<string[]> = (field) => words(field).sort();

/** Undefined where a part above it is absent. */
function at(field: Field, path: string): Field | undefined {
  let here = field;
  for (const name of path.split(".")) {
    if (here.isAbsent) return undefined;
    here = here.field(name);
  }
  return here;
}

/** The same program may be named by another path. */
function withProgramName([program = "", ...args]: readonly string[]): readonly string[] {
  return [basename(program), ...args];
}

/** As far as it is known here: names are looked up in the container's own files. */
function numericUser(user: string): readonly [uid: number | undefined, gid: number | undefined] {
  const [uid = "", gid] = user.split(":");
  if (user === "") return [0, 0];
  const numeric = (word: string | undefined): number | undefined =>
    word !== undefined && /^\d+$/.test(word) ? Number(word) : undefined;
  return [numeric(uid), numeric(gid)];
}

interface Rlimit {
  readonly type: string;
  readonly soft: number;
  readonly hard: number;
}

function rlimit(field: Field): Rlimit {
  return {
    type: field.field("type").string(),
    soft: field.field("soft").number(),
    hard: field.field("hard").number(),
  };
}

function byType(one: Rlimit, other: Rlimit): number {
  return one.type.localeCompare(other.type);
}

function namespaceTypes(field: Field): string[] {
  const types = field.array((each) => each.field("type").string());
  return types.filter((type) => !SHARED_NAMESPACES.includes(type)).sort();
}

function mountsOf(field: Field): ReadonlyMap<string, string> {
  return new Map(
    field.array((mount) => {
      const destination = mount.field("destination").string();
      const type = mount.field("type").optional(text) ?? "";
      return [destination, mountWords({ type, options: mount.field("options").optional(words) ?? [] })] as const;
    }),
  );
}

/** All of a mount but where it is and what is mounted. */
function mountWords({ type, options }: { readonly type: string; readonly options: readonly string[] }): string {
  return [type, ...[...options].sort()].join(" ");
}

function shown(value: unknown): string {
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? "nothing")).slice(0, SHOWN_LENGTH);
}
