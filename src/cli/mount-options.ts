/** `-v` and `--mount` as docker reads them, and what a VM adds to them: how a file or directory of the host reaches the guest. */
import { resolve } from "node:path";
import { BelljarError } from "../base/index.ts";
import type { MountConfig } from "../sdk/index.ts";
import { parseBytes } from "./quantities.ts";

type Change = Partial<Pick<MountConfig, "readOnly" | "propagation" | "noCopy" | "how">>;

/** What may stand behind the second colon of `-v`. */
const MODES: Readonly<Record<string, Change>> = {
  ro: { readOnly: true },
  rw: { readOnly: false },
  nocopy: { noCopy: true },
  live: { how: "live" },
  copy: { how: "copy" },
  disk: { how: "disk" },
  ...Object.fromEntries(
    ["shared", "rshared", "slave", "rslave", "private", "rprivate"].map((word) => [word, { propagation: word }]),
  ),
  // What they are for does not exist here: labels of the host's security module, and caches between two systems.
  ...Object.fromEntries(["z", "Z", "cached", "delegated", "consistent"].map((word) => [word, {}])),
};

/** `[SOURCE:]TARGET[:OPTIONS]`; a source without a slash is the name of a volume. */
export function parseVolume(text: string, workingDir: string): MountConfig {
  const parts = text.split(":");
  const invalid = (problem: string): BelljarError =>
    new BelljarError("INVALID_ARGUMENT", `invalid volume specification ${JSON.stringify(text)}: ${problem}`, {
      remedy: "Write SOURCE:TARGET or SOURCE:TARGET:ro; both sides are paths, or SOURCE is the name of a volume.",
    });
  if (parts.length > 3) throw invalid("it has too many colons");
  if (parts.some((part) => part === "")) throw invalid("a part of it is empty");
  const [first = "", second, modes] = parts;
  if (second === undefined) return checkedTarget({ type: "volume", target: first }, invalid);
  let mount: MountConfig = { type: isPath(first) ? "bind" : "volume", source: first, target: second };
  if (mount.type === "bind") mount = { ...mount, source: resolve(workingDir, first), createSource: true };
  for (const word of modes?.split(",") ?? []) {
    const change = Object.hasOwn(MODES, word) ? MODES[word] : undefined;
    if (change === undefined) throw invalid(`invalid mode: ${word}`);
    const isAgainst = mount.type === "bind" ? change.noCopy !== undefined : change.how !== undefined;
    if (isAgainst) throw invalid(`a ${mount.type} cannot be ${word}`);
    mount = { ...mount, ...change };
  }
  return checkedTarget(mount, invalid);
}

function isPath(source: string): boolean {
  return (
    source.startsWith("/") || source === "." || source === ".." || /^\.{0,2}\/|^~/.test(source) || source.includes("/")
  );
}

function checkedTarget(mount: MountConfig, invalid: (problem: string) => BelljarError): MountConfig {
  if (mount.target.startsWith("/")) return mount;
  throw invalid(`the target ${JSON.stringify(mount.target)} must be an absolute path in the container`);
}

type Setter = (mount: MountConfig, value: string, flag: boolean) => MountConfig;

const text =
  (name: "source" | "target" | "fileSystem" | "propagation"): Setter =>
  (mount, value) => ({ ...mount, [name]: value });
const readOnly: Setter = (mount, _, flag) => ({ ...mount, readOnly: flag });
const ignored: Setter = (mount) => mount;

/** Keys of `--mount`. */
const KEYS: Readonly<Record<string, Setter>> = {
  type: (mount, value) => ({ ...mount, type: oneOf(["bind", "volume", "tmpfs", "disk"], value, "type") }),
  source: text("source"),
  src: text("source"),
  target: text("target"),
  dst: text("target"),
  destination: text("target"),
  readonly: readOnly,
  ro: readOnly,
  how: (mount, value) => ({ ...mount, how: oneOf(["live", "copy", "disk"], value, "how") }),
  fstype: text("fileSystem"),
  format: (mount, value) => ({ ...mount, format: oneOf(["raw", "qcow2"], value, "format") }),
  option: (mount, value) => ({ ...mount, options: [...(mount.options ?? []), value] }),
  size: (mount, value) => ({ ...mount, sizeBytes: parseBytes(value, "--mount size=") }),
  "bind-propagation": text("propagation"),
  "bind-recursive": ignored,
  "bind-nonrecursive": ignored,
  consistency: ignored,
  "volume-nocopy": (mount, _, flag) => ({ ...mount, noCopy: flag }),
  "tmpfs-size": (mount, value) => ({ ...mount, sizeBytes: parseBytes(value, "--mount tmpfs-size=") }),
  "tmpfs-mode": (mount, value) => ({ ...mount, mode: parseMode(value) }),
};

/** `type=bind,source=/a,target=/b,readonly`; a value with a comma is quoted as in CSV. The type is `volume` unless told. */
export function parseMount(specification: string, workingDir: string): MountConfig {
  let mount: MountConfig = { type: "volume", target: "" };
  for (const field of splitFields(specification)) {
    const at = field.indexOf("=");
    const key = (at === -1 ? field : field.slice(0, at)).trim().toLowerCase();
    const set = Object.hasOwn(KEYS, key) ? KEYS[key] : undefined;
    if (set === undefined)
      throw invalidMount(specification, `unexpected key ${JSON.stringify(key)} in ${JSON.stringify(field)}`);
    const isFlag = ["readonly", "ro", "volume-nocopy", "bind-nonrecursive"].includes(key);
    if (at === -1 && !isFlag)
      throw invalidMount(specification, `invalid field ${JSON.stringify(field)} must be a key=value pair`);
    const value = at === -1 ? "true" : field.slice(at + 1);
    if (isFlag && !/^(?:true|false|1|0)$/.test(value)) {
      throw invalidMount(specification, `invalid value for ${key}: ${value}`);
    }
    mount = set(mount, value, value === "true" || value === "1");
  }
  if (mount.target === "") throw invalidMount(specification, "target is required");
  const { type, source } = mount;
  if ((type === "bind" || type === "disk") && (source === undefined || source === "")) {
    throw invalidMount(specification, `source is required for the type ${type}`);
  }
  if ((type === "bind" || type === "disk") && source !== undefined)
    return { ...mount, source: resolve(workingDir, source) };
  return mount;
}

function oneOf<const T extends string>(words: readonly T[], value: string, key: string): T {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw new BelljarError(
    "INVALID_ARGUMENT",
    `--mount ${key}=${value.slice(0, 40)}: ${key} is one of ${words.join(", ")}`,
  );
}

function parseMode(value: string): number {
  if (/^[0-7]{1,4}$/.test(value)) return Number.parseInt(value, 8);
  throw new BelljarError("INVALID_ARGUMENT", `--mount tmpfs-mode=${value.slice(0, 40)} is not an octal mode`);
}

function splitFields(specification: string): string[] {
  const fields = specification.match(/(?:[^,"]|"(?:[^"]|"")*")+/g) ?? [];
  return fields.map((field) => field.replace(/"((?:[^"]|"")*)"/g, (_, inner: string) => inner.replaceAll('""', '"')));
}

function invalidMount(specification: string, problem: string): BelljarError {
  const message = `invalid argument ${JSON.stringify(specification.slice(0, 200))} for --mount: ${problem}`;
  return new BelljarError("INVALID_ARGUMENT", message);
}
