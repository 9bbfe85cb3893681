/** What a caller asks of a sandbox, checked before anything is made. */
import { BelljarError, checkName, sandboxLimits } from "../base/index.ts";
import type { Acceleration } from "../hypervisor/interface.ts";

export interface SandboxConfig {
  /** Unique among sandboxes; the id stands in when there is none. */
  readonly name?: string | undefined;
  readonly memoryMib?: number | undefined;
  readonly cpus?: number | undefined;
  readonly acceleration?: "auto" | Acceleration | undefined;
  readonly hostname?: string | undefined;
  /** From the VM's start until its agent answers. */
  readonly bootTimeoutMs?: number | undefined;
  /** For people and for whoever lists sandboxes; those that Belljar understands are in the reference. */
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  readonly dns?: DnsConfig | undefined;
  /** Its containers see one another's processes. */
  readonly sharePids?: boolean | undefined;
  /** Size of the /dev/shm that its containers share. */
  readonly sharedMemoryBytes?: number | undefined;
  /** It stops when its first container has ended, as `docker run` does; otherwise it runs until it is stopped. */
  readonly stopWithMain?: boolean | undefined;
  /** It is deleted once it has stopped. */
  readonly autoRemove?: boolean | undefined;
}

export interface DnsConfig {
  readonly servers?: readonly string[] | undefined;
  readonly search?: readonly string[] | undefined;
  readonly options?: readonly string[] | undefined;
}

/** A configuration with every default filled in. */
export interface SandboxSettings {
  readonly name: string;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly acceleration: "auto" | Acceleration;
  readonly hostname: string;
  readonly bootTimeoutMs: number;
}

const HOSTNAME =
  /^(?=.{1,63}$)[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;

/** @throws BelljarError `INVALID_ARGUMENT`, naming the option and what it may be. */
export function settleSandboxConfig(config: SandboxConfig, id: string): SandboxSettings {
  const memoryMib = config.memoryMib ?? sandboxLimits.memoryDefaultMib;
  checkRange("memory", memoryMib, sandboxLimits.memoryMinMib, sandboxLimits.memoryMaxMib, "MiB");
  const cpus = config.cpus ?? 1;
  checkRange("cpus", cpus, 1, sandboxLimits.cpusMax, "CPUs");
  const hostname = config.hostname ?? id;
  if (!HOSTNAME.test(hostname)) {
    throw new BelljarError("INVALID_ARGUMENT", `hostname ${JSON.stringify(hostname.slice(0, 80))} is not a host name`, {
      remedy: "Use at most 63 letters, digits, dashes and dots.",
    });
  }
  return {
    name: config.name === undefined ? id : checkName(config.name, "the name"),
    memoryMib,
    cpus,
    acceleration: config.acceleration ?? "auto",
    hostname,
    bootTimeoutMs: config.bootTimeoutMs ?? sandboxLimits.bootTimeoutMs,
  };
}

function checkRange(what: string, value: number, min: number, max: number, unit: string): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new BelljarError("INVALID_ARGUMENT", `${what} of ${value} ${unit} is out of range`, {
    facts: { min, max },
    remedy: `Ask for ${min} to ${max} ${unit}.`,
  });
}
