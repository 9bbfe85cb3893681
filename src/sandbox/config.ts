/** What a caller asks of a sandbox, checked before anything is made. */
import { isIP } from "node:net";
import { BelljarError, checkName, hibernationLimits, sandboxLimits } from "../base/index.ts";
import type { Acceleration, VmSize } from "../hypervisor/interface.ts";
import { type NetworkConfig, type NetworkSettings, settleNetwork } from "../network/index.ts";
import type { SizingRules } from "../resources/index.ts";
import { checkAnnotations, sandboxAnnotations } from "./annotations.ts";
import { VFIO_DEFAULTS, type VfioPort, type VfioSettings, vfioPorts } from "./pci-devices.ts";
import { type RestartConfig, settleRestart } from "./restart.ts";
import { settleTrail, type TrailConfig, type TrailSettings } from "./trail.ts";

export interface SandboxConfig {
  /** Unique among sandboxes; the id stands in when there is none. */
  readonly name?: string | undefined;
  /** Of the VM; where nothing is said, the usual size and as much on top as the containers' limits add up to. */
  readonly memoryMib?: number | undefined;
  readonly cpus?: number | undefined;
  /** Up to where the VM can grow while it runs. */
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  readonly acceleration?: "auto" | Acceleration | undefined;
  readonly hostname?: string | undefined;
  /** From the VM's start until its agent answers. */
  readonly bootTimeoutMs?: number | undefined;
  /** For people and for whoever lists sandboxes; those that Belljar understands: docs/reference/annotations.md. */
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  readonly dns?: DnsConfig | undefined;
  /** Loopback alone unless told. */
  readonly network?: NetworkConfig | undefined;
  /** Its containers see one another's processes. */
  readonly sharePids?: boolean | undefined;
  /** Size of the /dev/shm that its containers share. */
  readonly sharedMemoryBytes?: number | undefined;
  /** It can have vhost-user devices, shared directories among them: programs on the host then map its memory. */
  readonly vhostUser?: boolean | undefined;
  /** It stops when its first container has ended, as `docker run` does; otherwise it runs until it is stopped. */
  readonly stopWithMain?: boolean | undefined;
  /** It is deleted once it has stopped. */
  readonly autoRemove?: boolean | undefined;
  /** On which ports PCI devices of the host are plugged; hot on root ports unless told. */
  readonly vfio?: { readonly [when in keyof VfioSettings]?: VfioPort | undefined } | undefined;
  /** Start from a template, made on first use; true unless told. Without one every start boots a kernel. */
  readonly template?: boolean | undefined;
  /** Sandboxes share the memory of their template until they change it; those of different domains have templates of their own. */
  readonly templateDomain?: string | undefined;
  /** Without activity for so long its VM is let go, until somebody wants something of it again; never unless told. */
  readonly idleTimeoutMs?: number | undefined;
  /** Checkpoints that are taken by themselves while it runs. */
  readonly trail?: TrailConfig | undefined;
  /** What becomes of it when it has failed: nothing unless told. */
  readonly restart?: RestartConfig | undefined;
}

export interface DnsConfig {
  readonly servers?: readonly string[] | undefined;
  readonly search?: readonly string[] | undefined;
  readonly options?: readonly string[] | undefined;
}

/** A configuration with every default filled in: what every boot of the sandbox goes by. */
export interface SandboxSettings {
  readonly memoryMib: number;
  readonly cpus: number;
  /** Whether these were asked for, or follow the containers' limits; asked for, in states of older versions. */
  readonly sizing?: SizingRules | undefined;
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  readonly acceleration: "auto" | Acceleration;
  readonly hostname: string;
  readonly bootTimeoutMs: number;
  readonly dns: {
    readonly servers: readonly string[];
    readonly search: readonly string[];
    readonly options: readonly string[];
  };
  readonly sharePids: boolean;
  /** Absent: each container has a /dev/shm of its own. */
  readonly sharedMemoryBytes?: number | undefined;
  readonly vhostUser?: boolean | undefined;
  readonly stopWithMain: boolean;
  readonly autoRemove: boolean;
  /** Absent: `VFIO_DEFAULTS`. */
  readonly vfio?: VfioSettings | undefined;
  /** Absent: loopback alone. */
  readonly network?: NetworkSettings | undefined;
  /** False: every start boots a kernel. */
  readonly template?: boolean | undefined;
  readonly templateDomain?: string | undefined;
  readonly idleTimeoutMs?: number | undefined;
  readonly trail?: TrailSettings | undefined;
  readonly restart?: RestartConfig | undefined;
}

export interface SettledSandbox {
  readonly name: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly settings: SandboxSettings;
}

const HOSTNAME =
  /^(?=.{1,63}$)[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;

/** @throws BelljarError `INVALID_ARGUMENT`, naming the option and what it may be. */
export function settleSandboxConfig(config: SandboxConfig, id: string): SettledSandbox {
  const annotations = checkAnnotations(config.annotations ?? {});
  const fromAnnotations = sandboxAnnotations(annotations);
  const askedMib = config.memoryMib ?? fromAnnotations.memoryMib;
  const askedCpus = config.cpus ?? fromAnnotations.cpus;
  const { memoryMib = sandboxLimits.memoryDefaultMib, cpus = 1 } = { memoryMib: askedMib, cpus: askedCpus };
  checkMemoryMib(memoryMib);
  checkCpus(cpus);
  const { memoryMaxMib, cpusMax } = config;
  if (memoryMaxMib !== undefined) {
    checkRange("the memory maximum", memoryMaxMib, memoryMib, sandboxLimits.memoryMaxMib, "MiB");
  }
  if (cpusMax !== undefined) checkRange("the CPU maximum", cpusMax, cpus, sandboxLimits.cpusMax, "CPUs");
  const { sharedMemoryBytes } = config;
  if (sharedMemoryBytes !== undefined) {
    checkRange("shared memory", sharedMemoryBytes, 1, sandboxLimits.sharedMemoryMaxBytes, "bytes");
  }
  const { idleTimeoutMs } = config;
  if (idleTimeoutMs !== undefined) {
    checkRange(
      "an idle timeout",
      idleTimeoutMs,
      hibernationLimits.idleTimeoutMinMs,
      hibernationLimits.idleTimeoutMaxMs,
      "ms",
    );
  }
  const hostname = checkHostname(config.hostname ?? id);
  return {
    name: config.name === undefined ? id : checkName(config.name, "the name"),
    annotations,
    settings: {
      memoryMib,
      cpus,
      sizing: {
        memory: askedMib === undefined ? "limits" : "fixed",
        cpus: askedCpus === undefined ? "limits" : "fixed",
      },
      memoryMaxMib,
      cpusMax,
      acceleration: config.acceleration ?? "auto",
      hostname,
      bootTimeoutMs: config.bootTimeoutMs ?? sandboxLimits.bootTimeoutMs,
      dns: settleDns(config.dns ?? {}),
      sharePids: config.sharePids === true,
      sharedMemoryBytes,
      ...(config.vhostUser === true ? { vhostUser: true } : {}),
      stopWithMain: config.stopWithMain === true,
      autoRemove: config.autoRemove === true,
      network: settleNetwork(config.network ?? {}),
      vfio: settleVfio(config.vfio),
      template: config.template === false ? false : undefined,
      templateDomain:
        config.templateDomain === undefined ? undefined : checkName(config.templateDomain, "the template domain"),
      idleTimeoutMs,
      trail: settleTrail(config.trail),
      restart: settleRestart(config.restart, config.autoRemove === true),
    },
  };
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkHostname(hostname: string): string {
  if (HOSTNAME.test(hostname)) return hostname;
  throw new BelljarError("INVALID_ARGUMENT", `hostname ${JSON.stringify(hostname.slice(0, 80))} is not a host name`, {
    remedy: "Use at most 63 letters, digits, dashes and dots.",
  });
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkMemoryMib(memoryMib: number): void {
  checkRange("memory", memoryMib, sandboxLimits.memoryMinMib, sandboxLimits.memoryMaxMib, "MiB");
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkCpus(cpus: number): void {
  checkRange("cpus", cpus, 1, sandboxLimits.cpusMax, "CPUs");
}

/** Up to where the VM may grow: as was said, or the usual. */
export function maxSize(settings: SandboxSettings): VmSize {
  return {
    memoryMib: settings.memoryMaxMib ?? Math.max(settings.memoryMib, sandboxLimits.memoryGrowthMib),
    cpus: settings.cpusMax ?? Math.max(settings.cpus, sandboxLimits.cpusGrowth),
  };
}

/**
 * What a VM of this size is started for. CPUs that are not in use cost an emulated VM something, so it has them only when somebody
 * has asked for them.
 */
export function growthOf(
  settings: SandboxSettings,
  size: VmSize,
  acceleration: Acceleration,
): { readonly memoryMaxMib: number; readonly cpusMax: number } {
  const max = maxSize(settings);
  const cpusMax = settings.cpusMax ?? (acceleration === "kvm" ? max.cpus : size.cpus);
  return { memoryMaxMib: Math.max(max.memoryMib, size.memoryMib), cpusMax: Math.max(cpusMax, size.cpus) };
}

/** The lines of resolv.conf; none when nothing was asked for and the network has no servers of its own. */
export function dnsLines({ dns }: SandboxSettings, ofNetwork: readonly string[] = []): string[] {
  return [
    ...(dns.servers.length > 0 ? dns.servers : ofNetwork).map((server) => `nameserver ${server}`),
    ...(dns.search.length === 0 ? [] : [`search ${dns.search.join(" ")}`]),
    ...(dns.options.length === 0 ? [] : [`options ${dns.options.join(" ")}`]),
  ];
}

function settleVfio(vfio: SandboxConfig["vfio"]): VfioSettings | undefined {
  if (vfio?.coldPlug === undefined && vfio?.hotPlug === undefined) return undefined;
  const { coldPlug = VFIO_DEFAULTS.coldPlug, hotPlug = VFIO_DEFAULTS.hotPlug } = vfio;
  const wrong = [coldPlug, hotPlug].find((port) => !vfioPorts.includes(port));
  if (wrong === undefined) return { coldPlug, hotPlug };
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(wrong)} is no kind of port`, {
    remedy: `Use one of ${vfioPorts.join(", ")}.`,
  });
}

function settleDns(dns: DnsConfig): SandboxSettings["dns"] {
  const words = (what: string, list: readonly string[], isRight: (word: string) => boolean): readonly string[] => {
    checkRange(`the number of DNS ${what}s`, list.length, 0, sandboxLimits.dnsEntriesMax, "entries");
    const wrong = list.find((word) => !isRight(word));
    if (wrong === undefined) return [...list];
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(wrong.slice(0, 80))} is not a DNS ${what}`);
  };
  return {
    servers: words("server", dns.servers ?? [], (word) => isIP(word) !== 0),
    search: words("search domain", dns.search ?? [], (word) => /^[a-zA-Z0-9_.-]{1,253}$/.test(word)),
    options: words("option", dns.options ?? [], (word) => /^[a-z0-9-]{1,40}(?::\d{1,6})?$/.test(word)),
  };
}

function checkRange(what: string, value: number, min: number, max: number, unit: string): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new BelljarError("INVALID_ARGUMENT", `${what} of ${value} ${unit} is out of range`, {
    facts: { min, max },
    remedy: `Ask for ${min} to ${max} ${unit}.`,
  });
}
