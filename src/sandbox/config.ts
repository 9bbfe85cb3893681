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
