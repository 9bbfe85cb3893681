/**
 * Builds the OCI runtime specification of a container from its image's configuration and the caller's options. Pure: the same
 * input gives the same output, and golden files show it. What only the guest can know (user numbers, paths, cgroup) is filled
 * in by the agent.
 */
import { BelljarError } from "../base/index.ts";
import { resolveCapabilities } from "./capabilities.ts";
import type { ContainerConfig } from "./config.ts";
import { DEVICE_RULES } from "./devices.ts";
import { limitsOf, resourceLimits } from "./limits.ts";
import type { MountState } from "./mount-config.ts";
import { buildMounts } from "./mounts.ts";
import type { OciProcess, OciSpec } from "./oci-spec.ts";
import { DEFAULT_RLIMITS } from "./rlimits.ts";
import { resolveSeccomp } from "./seccomp.ts";

/** What of an image's configuration matters for running it. */
export interface ImageRunConfig {
  readonly entrypoint?: readonly string[] | undefined;
  readonly cmd?: readonly string[] | undefined;
  readonly env?: readonly string[] | undefined;
  readonly workingDir?: string | undefined;
}

export interface SpecOptions extends ContainerConfig {
  readonly hostname: string;
  /** What was made of the mounts that were asked for. */
  readonly placedMounts?: readonly MountState[] | undefined;
}

const DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const KEEP_ALIVE_COMMAND = ["keep-alive"];

/** Files of /proc and /sys that tell about, or change, more than the container. */
const MASKED_PATHS = [
  ...["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"],
  ...["/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"],
  ...["/sys/devices/virtual/powercap", "/sys/firmware"],
];
const READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/** @throws BelljarError `INVALID_ARGUMENT`, naming the option that is wrong. */
export function buildSpec(image: ImageRunConfig, options: SpecOptions): OciSpec {
  const process = buildProcess(image, options);
  const seccomp = resolveSeccomp(options, process.capabilities.bounding);
  return {
    ociVersion: "1.0.2",
    process,
    root: { path: "rootfs", readonly: options.readOnly === true },
    mounts: buildMounts(options, options.placedMounts ?? []),
    annotations: options.annotations ?? {},
    linux: {
      // None for network and host name: the sandbox is one host on the network, and all its containers are on it. A new name of the
      // guest is then at once that of everything which runs there.
      namespaces: ["pid", "ipc", "mount", "cgroup"].map((type) => ({ type })),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
      resources: { devices: DEVICE_RULES, ...resourceLimits(limitsOf(options)) },
      ...(seccomp === undefined ? {} : { seccomp }),
    },
  };
}

/** The process object, of a container's init or of an `exec`, which has the container's privileges. */
export function buildProcess(image: ImageRunConfig, options: SpecOptions): OciProcess {
  const tty = options.tty === true;
  const capabilities = resolveCapabilities(options.capAdd ?? [], options.capDrop ?? []);
  return {
    terminal: tty,
    user: { uid: 0, gid: 0 },
    args: commandLine(image, options),
    env: environment(image, options, tty),
    cwd: workingDirectory(options.workingDir ?? (image.workingDir || "/")),
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    rlimits: (options.rlimits ?? DEFAULT_RLIMITS).map(({ type, soft, hard }) => ({ type, soft, hard })),
    noNewPrivileges: hasNoNewPrivileges(options.securityOptions ?? []),
    // The agent protects itself from the kernel's out-of-memory killer; what it starts must not inherit that.
    oomScoreAdj: 0,
  };
}

/** Docker's rule: entrypoint then command; an entrypoint of the caller's own makes the image's command void. */
export function commandLine(image: ImageRunConfig, options: ContainerConfig): readonly string[] {
  const entrypoint = options.entrypoint ?? image.entrypoint ?? [];
  const command = options.command ?? (options.entrypoint === undefined ? (image.cmd ?? []) : []);
  const args = [...entrypoint, ...command];
  // The agent runs a process of its own in its place; the specification must name some command all the same.
  if (options.keepAlive === true && options.command === undefined) return KEEP_ALIVE_COMMAND;
  if (args.length === 0) {
    throw new BelljarError("INVALID_ARGUMENT", "there is no command to run: the image has none of its own", {
      remedy: "Name a command after the image.",
    });
  }
  if (args[0] === "") throw new BelljarError("INVALID_ARGUMENT", "the command is an empty string");
  for (const each of args) refuseNul(each, "an argument");
  return args;
}

/** Later entries win; the order of first appearance stays. */
function environment(image: ImageRunConfig, options: SpecOptions, tty: boolean): readonly string[] {
  const variables = new Map<string, string>();
  const set = (entry: string): void => {
    const at = entry.indexOf("=");
    variables.set(entry.slice(0, at), entry);
  };
  set(DEFAULT_PATH);
  set(`HOSTNAME=${options.hostname}`);
  if (tty) set("TERM=xterm");
  for (const entry of image.env ?? []) if (entry.indexOf("=") > 0) set(entry);
  for (const entry of options.env ?? []) {
    refuseNul(entry, "an environment variable");
    const at = entry.indexOf("=");
    if (at === 0 || entry === "") {
      throw new BelljarError("INVALID_ARGUMENT", `the environment variable ${JSON.stringify(entry)} has no name`);
    }
    if (at > 0) {
      set(entry);
      continue;
    }
    // A name alone takes the client's value, and unsets what the image has when the client has none.
    const value = options.clientEnvironment?.[entry];
    if (value === undefined) variables.delete(entry);
    else set(`${entry}=${value}`);
  }
  return [...variables.values()];
}

function workingDirectory(path: string): string {
  refuseNul(path, "the working directory");
  if (path.startsWith("/")) return path;
  throw new BelljarError("INVALID_ARGUMENT", `the working directory ${JSON.stringify(path)} is not an absolute path`);
}

function hasNoNewPrivileges(securityOptions: readonly string[]): boolean {
  return securityOptions.some((each) => /^no-new-privileges([:=]true)?$/.test(each));
}

function refuseNul(text: string, what: string): void {
  if (text.includes("\0")) throw new BelljarError("INVALID_ARGUMENT", `${what} contains a NUL character`);
}
