/** Options of `run` and `create`: what a new sandbox and its container are to be. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { BelljarError, checkName } from "../base/index.ts";
import { isVfioSource } from "../devices/index.ts";
import { type EndpointModel, endpointModels, type PolicyDefault, policyDefaults } from "../network/index.ts";
import type { ContainerCreateConfig, MountConfig, SandboxCreateConfig } from "../sdk/index.ts";
import type { CommonOptions } from "./context.ts";
import { parseContainerDevice } from "./device-options.ts";
import { keepingConfig } from "./keeping-options.ts";
import { parseMount, parseVolume } from "./mount-options.ts";
import { networkConfig } from "./network-options.ts";
import { parseBytes, parseCount, parseMebibytes } from "./quantities.ts";

const VFIO_PORTS = ["root-port", "switch-port", "no-port"] as const;
type VfioPort = (typeof VFIO_PORTS)[number];

export interface ContainerOptions extends CommonOptions {
  readonly rootfs?: boolean;
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly name?: string;
  readonly sandbox?: string;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly memory?: string;
  readonly cpus?: string;
  readonly memoryMax?: string;
  readonly cpusMax?: string;
  readonly accel?: "auto" | "kvm" | "tcg";
  readonly entrypoint?: string;
  readonly hostname?: string;
  /** False with `--no-template`. */
  readonly template?: string | false;
  readonly templateDomain?: string;
  readonly idleTimeout?: string;
  readonly checkpointEvery?: string;
  readonly keep?: string;
  readonly restart?: string;
  readonly network?: string;
  readonly publish?: readonly string[];
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  readonly networkDefault?: PolicyDefault;
  readonly networkModel?: EndpointModel;
  readonly link?: readonly string[];
  readonly netRateIn?: string;
  readonly netRateOut?: string;
  readonly readOnly?: boolean;
  readonly capAdd?: readonly string[];
  readonly capDrop?: readonly string[];
  readonly securityOpt?: readonly string[];
  readonly pidsLimit?: string;
  readonly shmSize?: string;
  readonly dns?: readonly string[];
  readonly dnsSearch?: readonly string[];
  readonly dnsOption?: readonly string[];
  readonly sharePids?: boolean;
  readonly sharedMemory?: string;
  readonly storage?: "disk" | "tmpfs";
  readonly storageSize?: string;
  readonly storageOpt?: readonly string[];
  readonly stopSignal?: string;
  readonly tmpfs?: readonly string[];
  readonly volume?: readonly string[];
  readonly mount?: readonly string[];
  readonly device?: readonly string[];
  readonly vhostUser?: boolean;
  readonly coldPlugVfio?: VfioPort;
  readonly hotPlugVfio?: VfioPort;
  readonly annotation?: readonly string[];
}

export const collect = (value: string, previous: readonly string[] = []): readonly string[] => [...previous, value];

export function addContainerOptions(command: Command): Command {
  return command
    .argument("[image]", "name of an image (see `belljar image ls`); with --template the first word of a command")
    .argument("[command...]", "command and arguments; the image's own when left out")
    .option("--rootfs", "the image is a block device or disk image with a file system, used as it is")
    .option("-i, --interactive", "give the container an open standard input")
    .option("-t, --tty", "give the container a terminal")
    .option("--name <name>", "name of the sandbox, or with --sandbox of the container")
    .option("--sandbox <sandbox>", "add the container to a sandbox that is there")
    .option("-e, --env <K=V>", "environment variable; K alone takes the value from here", collect)
    .option("-w, --workdir <dir>", "working directory")
    .option("-u, --user <user[:group]>", "user by name or number, from the container's own files")
    .option("-m, --memory <size>", "memory of the VM (256m), or with --sandbox limit of the container")
    .option("--cpus <n>", "CPUs of the VM (1), or with --sandbox limit of the container")
    .option("--memory-max <size>", "up to where the VM's memory can grow (8g)")
    .option("--cpus-max <n>", "up to how many CPUs the VM can grow (8)")
    .addOption(new Option("--accel <how>", "acceleration").choices(["auto", "kvm", "tcg"]).default("auto"))
    .option("--entrypoint <program>", "instead of the image's entrypoint; an empty string removes it")
    .option("--hostname <name>", "host name (the sandbox's id)")
    .option("--template <name>", "go on where a template was taken that was made of a sandbox, by name or digest")
    .option("--no-template", "boot a kernel instead of starting from a template")
    .option(
      "--idle-timeout <duration>",
      "hibernate the sandbox when nobody has wanted anything of it for so long (30m)",
    )
    .option("--checkpoint-every <duration>", "take a checkpoint every so often while it runs (10m)")
    .option("--keep <n>", "how many of these there are at most; the oldest go (10)")
    .option("--restart <policy>", "when it has failed: no, on-failure[:MAX], from-checkpoint[:MAX] (no)")
    .option("--template-domain <name>", "share a template's memory only with sandboxes of this domain")
    .option(
      "--network <mode>",
      "network of the sandbox: none (loopback only), user (out through the host), bridge (an address on a bridge), " +
        "netns:PATH (a namespace that is there)",
    )
    .addOption(
      new Option("--network-model <model>", "how a VM is joined to interfaces of netns:PATH (tcfilter)").choices(
        endpointModels,
      ),
    )
    .option("--link <name>", "let the sandbox reach another one on the bridge, under its name or NAME:ALIAS", collect)
    .option("--net-rate-in <size>", "bytes per second to the sandbox at most")
    .option("--net-rate-out <size>", "bytes per second from the sandbox at most")
    .option("-p, --publish <port>", "publish a port: [ADDRESS:][HOST:]CONTAINER[/tcp|udp], or a range of them", collect)
    .option(
      "--allow <dest>",
      "let the sandbox reach a host, address or range, [:PORT]; private ones are closed",
      collect,
    )
    .option("--deny <dest>", "keep the sandbox from a host, address or range, [:PORT]", collect)
    .addOption(
      new Option("--network-default <word>", "public addresses that nobody has named (open)").choices(policyDefaults),
    )
    .option("--read-only", "read-only root file system")
    .option("--cap-add <cap>", "add a capability", collect)
    .option("--cap-drop <cap>", "drop a capability, or ALL", collect)
    .option("--security-opt <opt>", "seccomp=FILE, seccomp=unconfined, no-new-privileges", collect)
    .option("--pids-limit <n>", "processes and threads at most")
    .option("--shm-size <size>", "size of /dev/shm (64m)")
    .option("--shared-memory <size>", "one /dev/shm for all containers of the sandbox, of this size")
    .option("--share-pids", "the containers of the sandbox see one another's processes")
    .option("--dns <address>", "name server of the sandbox", collect)
    .option("--dns-search <domain>", "domain in which names are looked up", collect)
    .option("--dns-option <option>", "option of the resolver", collect)
    .addOption(
      new Option("--storage <kind>", "where the container writes: a disk, or memory").choices(["disk", "tmpfs"]),
    )
    .option("--storage-size <size>", "how much it can write (10g, sparse; of memory half)")
    .option("--storage-opt <size=size>", "the same in docker's words", collect)
    .option("--stop-signal <signal>", "what `stop` sends first (the image's, or SIGTERM)")
    .option(
      "-v, --volume <src:dst[:opts]>",
      "mount a volume (name) or a file or directory (path); options: ro, live, copy, disk",
      collect,
    )
    .option(
      "--mount <k=v,...>",
      "type=bind|volume|tmpfs|disk, source=, target=, readonly, how=live|copy|disk, fstype=, size=",
      collect,
    )
    .option(
      "--device <src[:dst[:rwm]]>",
      "device of the host, disk image, or PCI device (0000:03:00.0, /dev/vfio/12)",
      collect,
    )
    .option("--vhost-user", "the sandbox can have vhost-user devices: programs on the host map its memory")
    .option("--tmpfs <dir[:opts]>", "mount a tmpfs", collect)
    .addOption(new Option("--cold-plug-vfio <port>", "PCI devices are there from the VM's start").choices(VFIO_PORTS))
    .addOption(new Option("--hot-plug-vfio <port>", "PCI devices come with containers (root-port)").choices(VFIO_PORTS))
    .option("--annotation <K=V>", "annotation of the sandbox, or with --sandbox of the container", collect)
    .passThroughOptions();
}

/** @throws BelljarError `INVALID_ARGUMENT` without one */
export function needImage(image: string | undefined): string {
  if (image === "") throw new BelljarError("INVALID_ARGUMENT", "the name of the image is empty");
  if (image !== undefined) return image;
  throw new BelljarError("INVALID_ARGUMENT", "missing required argument 'image'", {
    remedy: "Name an image, or with `--template` a template that was made of a sandbox.",
  });
}

/** For a new sandbox. */
export async function sandboxConfig(
  image: string,
  args: readonly string[],
  options: ContainerOptions,
  environment: NodeJS.ProcessEnv,
): Promise<SandboxCreateConfig> {
  return {
    ...sourceOf(image, options),
    name: options.name,
    memoryMib: options.memory === undefined ? undefined : parseMebibytes(options.memory, "--memory"),
    cpus: options.cpus === undefined ? undefined : parseCount(options.cpus, "--cpus", { min: 1, max: 32 }),
    memoryMaxMib: options.memoryMax === undefined ? undefined : parseMebibytes(options.memoryMax, "--memory-max"),
    cpusMax: options.cpusMax === undefined ? undefined : parseCount(options.cpusMax, "--cpus-max", { min: 1, max: 32 }),
    acceleration: options.accel,
    hostname: options.hostname,
    template: options.template === false ? false : undefined,
    templateDomain: options.templateDomain,
    ...keepingConfig(options),
    dns: { servers: options.dns, search: options.dnsSearch, options: options.dnsOption },
    network: networkConfig(options),
    sharePids: options.sharePids,
    sharedMemoryBytes:
      options.sharedMemory === undefined ? undefined : parseBytes(options.sharedMemory, "--shared-memory"),
    vhostUser: options.vhostUser,
    annotations: parseAnnotations(options.annotation ?? []),
    vfio: { coldPlug: options.coldPlugVfio, hotPlug: options.hotPlugVfio },
    container: await containerConfig(args, options, environment),
    storage: options.storage,
    storageBytes: storageBytes(options),
  };
}

/** The daemon works in another directory. */
function sourceOf(image: string, options: ContainerOptions): Pick<SandboxCreateConfig, "image" | "rootfs"> {
  return options.rootfs === true ? { rootfs: { source: resolve(image) } } : { image };
}

/** For a further container in a sandbox that is there. */
export async function furtherContainerConfig(
  image: string,
  args: readonly string[],
  options: ContainerOptions,
  environment: NodeJS.ProcessEnv,
): Promise<ContainerCreateConfig> {
  for (const [flag, value] of Object.entries(ofTheSandbox(options))) {
    if (value === undefined) continue;
    throw new BelljarError("INVALID_ARGUMENT", `${flag} is the sandbox's, and --sandbox names one that is there`);
  }
  return {
    ...(await containerConfig(args, options, environment)),
    ...sourceOf(image, options),
    name: options.name === undefined ? undefined : checkName(options.name, "the name"),
    limits: parseLimits({ memory: options.memory, cpus: options.cpus }),
    annotations: parseAnnotations(options.annotation ?? []),
    storage: options.storage,
    storageBytes: storageBytes(options),
  };
}

/** The last word counts, and a word of our own before one of docker's. */
export function storageBytes({
  storageSize,
  storageOpt = [],
}: Pick<ContainerOptions, "storageSize" | "storageOpt">): number | undefined {
  const sizes = storageOpt.map((option) => {
    const [, size] = /^size=(.+)$/.exec(option) ?? [];
    if (size !== undefined) return parseBytes(size, "--storage-opt size");
    throw new BelljarError("INVALID_ARGUMENT", `--storage-opt ${JSON.stringify(option)} is not size=...`);
  });
  return storageSize === undefined ? sizes.at(-1) : parseBytes(storageSize, "--storage-size");
}

function ofTheSandbox(options: ContainerOptions): Readonly<Record<string, unknown>> {
  return {
    "--hostname": options.hostname,
    "--template": options.template === false ? undefined : options.template,
    "--no-template": options.template === false ? true : undefined,
    "--template-domain": options.templateDomain,
    "--idle-timeout": options.idleTimeout,
    "--checkpoint-every": options.checkpointEvery,
    "--restart": options.restart,
    "--memory-max": options.memoryMax,
    "--cpus-max": options.cpusMax,
    "--dns": options.dns,
    "--dns-search": options.dnsSearch,
    "--dns-option": options.dnsOption,
    "--network": options.network,
    "--publish": options.publish,
    "--allow": options.allow,
    "--deny": options.deny,
    "--network-default": options.networkDefault,
    "--network-model": options.networkModel,
    "--link": options.link,
    "--net-rate-in": options.netRateIn,
    "--net-rate-out": options.netRateOut,
    "--share-pids": options.sharePids,
    "--shared-memory": options.sharedMemory,
    "--vhost-user": options.vhostUser,
    "--cold-plug-vfio": options.coldPlugVfio,
    "--hot-plug-vfio": options.hotPlugVfio,
  };
}

async function containerConfig(
  args: readonly string[],
  options: ContainerOptions,
  environment: NodeJS.ProcessEnv,
): Promise<NonNullable<SandboxCreateConfig["container"]>> {
  const security = await readSecurityOptions(options.securityOpt ?? []);
  return {
    command: args.length === 0 ? undefined : args,
    // What the image runs by itself is what was asked for.
    keepAlive: false,
    entrypoint: options.entrypoint === undefined ? undefined : options.entrypoint === "" ? [] : [options.entrypoint],
    env: options.env ?? [],
    clientEnvironment: environment,
    workingDir: options.workdir,
    user: options.user,
    tty: options.tty === true,
    stdin: options.interactive === true,
    readOnly: options.readOnly === true,
    capAdd: options.capAdd ?? [],
    capDrop: options.capDrop ?? [],
    ...security,
    stopSignal: options.stopSignal,
    pidsLimit: options.pidsLimit === undefined ? undefined : parsePids(options.pidsLimit),
    shmBytes: options.shmSize === undefined ? undefined : parseBytes(options.shmSize, "--shm-size"),
    tmpfs: options.tmpfs ?? [],
    mounts: parseMounts(options),
    ...splitDevices(options.device),
  };
}

/** PCI devices are named in a way of their own. */
function splitDevices(
  given: readonly string[] = [],
): Pick<NonNullable<SandboxCreateConfig["container"]>, "devices" | "pciDevices"> {
  const pciDevices = given.filter((text) => isVfioSource(text));
  const devices = given.filter((text) => !isVfioSource(text)).map((text) => parseContainerDevice(text, process.cwd()));
  return {
    ...(devices.length === 0 ? {} : { devices }),
    ...(pciDevices.length === 0 ? {} : { pciDevices }),
  };
}

type SecurityOptions = Pick<NonNullable<SandboxCreateConfig["container"]>, "securityOptions" | "seccompProfile">;

/** `seccomp=FILE` is read here; the rest is for the container to understand. */
async function readSecurityOptions(options: readonly string[]): Promise<SecurityOptions> {
  const securityOptions: string[] = [];
  let seccompProfile: string | undefined;
  for (const option of options) {
    const path = /^seccomp[=:](?!unconfined$)(.+)$/.exec(option)?.[1];
    if (path === undefined) {
      securityOptions.push(option);
      continue;
    }
    seccompProfile = await readFile(path, "utf8").catch((cause: unknown) => {
      throw new BelljarError("INVALID_ARGUMENT", `the seccomp profile ${path} cannot be read`, { cause });
    });
  }
  return { securityOptions, seccompProfile };
}

function parseMounts({ volume = [], mount = [] }: ContainerOptions): readonly MountConfig[] | undefined {
  const here = process.cwd();
  const mounts = [...volume.map((text) => parseVolume(text, here)), ...mount.map((text) => parseMount(text, here))];
  return mounts.length === 0 ? undefined : mounts;
}

export interface LimitOptions {
  readonly memory?: string | undefined;
  readonly cpus?: string | undefined;
  readonly pidsLimit?: string | undefined;
  readonly cpuWeight?: string | undefined;
  readonly cpusetCpus?: string | undefined;
}

/** Limits of a container within its sandbox. */
export function parseLimits(options: LimitOptions): NonNullable<ContainerCreateConfig["limits"]> {
  const { memory, cpus, pidsLimit, cpuWeight, cpusetCpus } = options;
  return {
    ...(memory === undefined ? {} : { memoryBytes: parseBytes(memory, "--memory") }),
    ...(cpus === undefined ? {} : { cpus: parseCpus(cpus) }),
    ...(pidsLimit === undefined ? {} : { pids: parsePids(pidsLimit) }),
    ...(cpuWeight === undefined ? {} : { cpuWeight: parseCount(cpuWeight, "--cpu-weight", { min: 1, max: 10_000 }) }),
    ...(cpusetCpus === undefined ? {} : { cpuset: cpusetCpus }),
  };
}

function parseCpus(text: string): number {
  const value = Number(text);
  if (/^\d*\.?\d+$/.test(text) && value >= 0 && value <= 32) return value;
  throw new BelljarError("INVALID_ARGUMENT", `--cpus ${JSON.stringify(text.slice(0, 60))} is not a number of CPUs`, {
    remedy: "Ask for a number up to 32; 0.5 is half of one, and 0 is no limit.",
  });
}

/** As docker has it, 0 and -1 both stand for no limit. */
function parsePids(text: string): number {
  return Math.max(0, parseCount(text, "--pids-limit", { min: -1, max: 4_194_304 }));
}

export function parseAnnotations(pairs: readonly string[], flag = "--annotation"): Readonly<Record<string, string>> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) {
        throw new BelljarError("INVALID_ARGUMENT", `${flag} ${JSON.stringify(pair)} is not of the form K=V`);
      }
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
