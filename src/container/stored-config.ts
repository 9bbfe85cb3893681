/** A container's configuration as it is kept: without the caller's environment, and read back field by field. */
import { BelljarError, decodeField, deviceLimits, type Field, mountLimits, sandboxLimits } from "../base/index.ts";
import { decodeAnnotations } from "../sandbox/index.ts";
import type { ContainerConfig, ContainerLimits, ProcessConfig } from "./config.ts";
import { decodeContainerDevice } from "./device-config.ts";
import { decodeMountConfig } from "./mount-config.ts";

export type StoredConfig = Omit<ContainerConfig, "clientEnvironment">;

/** `K` alone takes the value that the caller's environment has now; without one it stays, and unsets what the image says. */
export function resolveEnvironment(config: ProcessConfig): readonly string[] | undefined {
  return config.env?.map((entry) => {
    if (entry.includes("=")) return entry;
    const value = config.clientEnvironment?.[entry];
    return value === undefined ? entry : `${entry}=${value}`;
  });
}

/** What can be kept of a configuration. @throws BelljarError `INVALID_ARGUMENT` for text that is not well formed, or too long */
export function storeConfig(config: ContainerConfig): StoredConfig {
  const { clientEnvironment: _, ...rest } = config;
  const stored = { ...rest, env: resolveEnvironment(config) };
  for (const words of [stored.entrypoint, stored.command, stored.env]) words?.forEach(checkArgument);
  if (!JSON.stringify(stored).isWellFormed() || hasLoneSurrogate(stored)) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      "the container's configuration has text that is not well-formed Unicode",
    );
  }
  // What the state file would not take is said in the caller's own terms.
  decodeStoredConfig(decodeField(JSON.parse(JSON.stringify(stored)), "container", "INVALID_ARGUMENT"));
  return stored;
}

function checkArgument(text: string): void {
  const bytes = Buffer.byteLength(text) + 1;
  if (bytes <= sandboxLimits.argumentMaxBytes) return;
  const shown = JSON.stringify(text.slice(0, 40));
  throw new BelljarError("INVALID_ARGUMENT", `an argument or environment variable of ${bytes} bytes: ${shown}...`, {
    facts: { bytes, maxBytes: sandboxLimits.argumentMaxBytes },
    remedy: `Linux passes on ${sandboxLimits.argumentMaxBytes} bytes at most: hand over what is longer as a file, or on standard input.`,
  });
}

/** JSON escapes a lone surrogate, which hides it from a look at the text as a whole. */
function hasLoneSurrogate(value: unknown): boolean {
  if (typeof value === "string") return !value.isWellFormed();
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).some(([key, item]) => !key.isWellFormed() || hasLoneSurrogate(item));
}

const words = (field: Field): string[] =>
  field.array((word) => word.string({ maxLength: sandboxLimits.argumentMaxBytes }));
const flag = (field: Field): boolean => field.boolean();
const text = (field: Field): string => field.string();

export function decodeStoredConfig(field: Field): StoredConfig {
  return {
    command: field.field("command").optional(words),
    env: field.field("env").optional(words),
    workingDir: field.field("workingDir").optional(text),
    user: field.field("user").optional(text),
    tty: field.field("tty").optional(flag),
    capAdd: field.field("capAdd").optional(words),
    capDrop: field.field("capDrop").optional(words),
    entrypoint: field.field("entrypoint").optional(words),
    readOnly: field.field("readOnly").optional(flag),
    stdin: field.field("stdin").optional(flag),
    keepAlive: field.field("keepAlive").optional(flag),
    stopSignal: field.field("stopSignal").optional(text),
    limits: field.field("limits").optional(decodeLimits),
    securityOptions: field.field("securityOptions").optional(words),
    seccompProfile: field.field("seccompProfile").optional((profile) => profile.string({ maxLength: 1_048_576 })),
    pidsLimit: field.field("pidsLimit").optional((count) => count.integer()),
    shmBytes: field.field("shmBytes").optional((size) => size.integer({ min: 0 })),
    tmpfs: field.field("tmpfs").optional(words),
    mounts: field
      .field("mounts")
      .optional((list) => list.array(decodeMountConfig, { maxItems: mountLimits.mountsMax })),
    rlimits: field.field("rlimits").optional((list) =>
      list.array((limit) => ({
        type: limit.field("type").string({ maxLength: 64 }),
        soft: limit.field("soft").number(),
        hard: limit.field("hard").number(),
      })),
    ),
    devices: field
      .field("devices")
      .optional((list) => list.array(decodeContainerDevice, { maxItems: deviceLimits.containerDevicesMax })),
    annotations: field.field("annotations").optional(decodeAnnotations),
    pciDevices: field.field("pciDevices").optional(words),
  };
}

export function decodeLimits(field: Field): ContainerLimits {
  const count = (name: string): number | undefined => field.field(name).optional((value) => value.integer({ min: 0 }));
  return {
    memoryBytes: count("memoryBytes"),
    cpus: field.field("cpus").optional((value) => value.number({ min: 0 })),
    cpuWeight: count("cpuWeight"),
    cpuset: field.field("cpuset").optional((value) => value.string({ maxLength: 256 })),
    pids: count("pids"),
  };
}
