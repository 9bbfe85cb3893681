/**
 * What this host can do, what it cannot, and the remedy for each. What other parts know better (the hypervisor, the guest
 * image) they are asked through functions, so that this part needs to know none of them.
 */
import { BelljarError, sandboxLimits, throwIfAborted, vmmLimits } from "../base/index.ts";
import type { AccelerationFinding, HypervisorInfo } from "../hypervisor/interface.ts";
import { type Capability, look } from "./capability.ts";
import { findHierarchies } from "./cgroup-hierarchies.ts";
import { inspectIommu, inspectVfio } from "./device-assignment.ts";
import { type HostFacts, thisHost } from "./host-facts.ts";
import {
  inspectDiskSpace,
  inspectForwarding,
  inspectKvm,
  inspectNested,
  inspectPagemapScan,
  inspectTun,
  inspectUserfaultfd,
} from "./host-kernel.ts";
import { hostTools, inspectTool } from "./host-tools.ts";

export interface InspectHostDeps {
  readonly hypervisor: () => Promise<HypervisorInfo>;
  readonly acceleration: () => Promise<AccelerationFinding>;
  readonly guestImage: () => Promise<{ readonly digest: string }>;
  /** Where everything is kept; it may not be there yet. */
  readonly rootDir: string;
  readonly signal?: AbortSignal | undefined;
  readonly host?: HostFacts;
}

/** Ordered as a reader would fix things: the host, QEMU, the guest image, the tools. */
export async function inspectHost(deps: InspectHostDeps): Promise<Capability[]> {
  const host = deps.host ?? thisHost;
  const found: Capability[] = [];
  const checks: readonly (() => Promise<Capability>)[] = [
    () => inspectSystem(host),
    () => inspectNode(host),
    () => inspectRights(host),
    () => inspectMemory(host),
    () => inspectDiskSpace(host, deps.rootDir),
    () => inspectKvm(host),
    () =>
      look("qemu", true, async () => {
        const { name, version, path } = await deps.hypervisor();
        return { status: "yes", detail: `${name} ${version}, ${path}` };
      }),
    () => look("acceleration", false, () => describeAcceleration(deps.acceleration)),
    () => look("guest image", true, async () => ({ status: "yes", detail: (await deps.guestImage()).digest })),
    () => inspectNested(host),
    () => inspectPagemapScan(host),
    () => inspectUserfaultfd(),
    () => inspectCgroups(host),
    () => inspectTun(host),
    () => inspectForwarding(host),
    () => inspectVsock(host),
    () => inspectIommu(host),
    () => inspectVfio(host),
    ...hostTools.map((tool) => () => inspectTool(tool, host.searchPath)),
  ];
  for (const check of checks) {
    throwIfAborted(deps.signal);
    found.push(await check());
  }
  return found;
}

async function describeAcceleration(
  acceleration: InspectHostDeps["acceleration"],
): Promise<Omit<Capability, "name" | "required">> {
  const { acceleration: found, explanation, remembered } = await acceleration();
  const detail = `${found}: ${explanation}${remembered ? " (remembered)" : ""}`;
  if (found === "kvm") return { status: "yes", detail };
  return {
    status: "degraded",
    detail,
    cost: "VMs are emulated: everything in them is several times slower",
    remedy: "Run on a host with working hardware virtualisation, or switch on nested virtualisation in this one's.",
  };
}

function inspectSystem(host: HostFacts): Promise<Capability> {
  return look("system", true, async () => {
    const detail = `${host.platform} on ${host.architecture}`;
    if (host.platform === "linux" && host.architecture === "x64") return { status: "yes", detail };
    return { status: "no", detail, remedy: "Belljar runs on Linux on x86_64 only." };
  });
}

/** First line of Node that runs the sources as they are. */
const NODE_OLDEST = { major: 22, minor: 18 };

function inspectNode(host: HostFacts): Promise<Capability> {
  return look("node", true, async () => {
    const [major = 0, minor = 0] = host.nodeVersion.split(".").map(Number);
    const enough = major > NODE_OLDEST.major || (major === NODE_OLDEST.major && minor >= NODE_OLDEST.minor);
    if (enough) return { status: "yes", detail: host.nodeVersion };
    const oldest = `${NODE_OLDEST.major}.${NODE_OLDEST.minor}`;
    return { status: "no", detail: host.nodeVersion, remedy: `Use Node ${oldest} or newer.` };
  });
}

function inspectRights(host: HostFacts): Promise<Capability> {
  return look("rights", false, async () => {
    if (host.userId === 0) return { status: "yes", detail: "root" };
    return {
      status: "degraded",
      detail: `user ${host.userId}`,
      cost: "owners and devices of image layers may not come out as they went in, and networks cannot be made",
      remedy: "Run as root.",
    };
  });
}

function inspectMemory(host: HostFacts): Promise<Capability> {
  return look("memory", true, async () => {
    const kib = /^MemAvailable:\s+(\d+) kB$/m.exec((await host.readFile("/proc/meminfo")) ?? "")?.[1];
    if (kib === undefined) throw new BelljarError("UNSUPPORTED_HOST", "/proc/meminfo has no MemAvailable");
    const freeMib = Math.floor(Number(kib) / 1024);
    const neededMib = sandboxLimits.memoryDefaultMib + vmmLimits.overheadMib;
    const detail = `${freeMib} MiB free; a sandbox of the usual size needs up to ${neededMib} MiB`;
    if (freeMib >= neededMib) return { status: "yes", detail };
    return { status: "no", detail, remedy: "Free some memory, or ask for less with `-m`." };
  });
}

/** A VM runs without one too, so its absence is no failure. */
function inspectCgroups(host: HostFacts): Promise<Capability> {
  return look("cgroups", false, async () => {
    const texts = await Promise.all(["/proc/self/mountinfo", "/proc/self/cgroup"].map((path) => host.readFile(path)));
    const [mountinfo = "", own = ""] = texts;
    const found = findHierarchies(mountinfo, own).filter(({ isWritable }) => isWritable);
    const [first] = found;
    if (first !== undefined && host.userId === 0) {
      return { status: "yes", detail: `version ${first.version}: ${found.map(({ dir }) => dir).join(", ")}` };
    }
    return {
      status: "degraded",
      detail: first === undefined ? "none is mounted for writing" : `only root may write to ${first.dir}`,
      cost: "what a VM uses is not counted and bounded by a group of its own",
      remedy: "Run as root, with /sys/fs/cgroup mounted for writing.",
    };
  });
}

function inspectVsock(host: HostFacts): Promise<Capability> {
  return look("vhost-vsock", false, async () => {
    if (await host.exists("/dev/vhost-vsock")) return { status: "yes", detail: "/dev/vhost-vsock" };
    return {
      status: "degraded",
      detail: "not there",
      cost: "none: virtio-serial carries the link to the guest",
      remedy: "None is needed; `modprobe vhost_vsock` where you want it for something else.",
    };
  });
}
