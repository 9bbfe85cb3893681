/** What the host's kernel has beyond what a VM cannot do without: nested virtualisation, dirty-page scans, network devices, room. */
import { BelljarError } from "../base/index.ts";
import { type Capability, look } from "./capability.ts";
import type { HostFacts } from "./host-facts.ts";

/** Of /dev/kvm alone; whether it works, the acceleration probe has found out. */
export function inspectKvm(host: HostFacts): Promise<Capability> {
  return look("kvm", false, async () => {
    if (await host.exists("/dev/kvm"))
      return { status: "yes", detail: "/dev/kvm; `acceleration` says whether it works" };
    const isVm = /^flags\s*:.*\bhypervisor\b/m.test((await host.readFile("/proc/cpuinfo")) ?? "");
    return {
      status: "no",
      detail: `no /dev/kvm${isVm ? "; this host is a VM itself" : ""}`,
      cost: "VMs are emulated: everything in them is several times slower",
      remedy: isVm
        ? "Switch on nested virtualisation for this VM where it runs."
        : "Switch virtualisation on in the firmware, and run `modprobe kvm_intel` or `modprobe kvm_amd`.",
    };
  });
}

const NESTED_PARAMETERS = ["/sys/module/kvm_intel/parameters/nested", "/sys/module/kvm_amd/parameters/nested"];

export function inspectNested(host: HostFacts): Promise<Capability> {
  return look("nested virtualisation", false, async () => {
    for (const path of NESTED_PARAMETERS) {
      const value = (await host.readFile(path))?.trim();
      if (value === "1" || value === "Y") return { status: "yes", detail: `${path} is ${value}` };
    }
    return {
      status: "no",
      detail: "guests cannot use virtualisation themselves",
      cost: "VMs inside sandboxes are emulated; nothing else needs it",
      remedy: "Load kvm_intel or kvm_amd with nested=1.",
    };
  });
}

/** First kernel with the PAGEMAP_SCAN ioctl. */
const PAGEMAP_SCAN_OLDEST = { major: 6, minor: 7 };

export function inspectPagemapScan(host: HostFacts): Promise<Capability> {
  return look("pagemap scan", false, async () => {
    const [major = 0, minor = 0] = host.kernelRelease.split(/[.-]/).map(Number);
    const { major: oldestMajor, minor: oldestMinor } = PAGEMAP_SCAN_OLDEST;
    const detail = `Linux ${host.kernelRelease}`;
    if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return { status: "yes", detail };
    return {
      status: "degraded",
      detail: `${detail} has no PAGEMAP_SCAN`,
      cost: "which pages of a VM have changed is found by reading all of its page map",
      remedy: `Use Linux ${oldestMajor}.${oldestMinor} or newer.`,
    };
  });
}

/** Named because users of other runtimes look for it. */
export function inspectUserfaultfd(): Promise<Capability> {
  return look("userfaultfd", false, async () => ({
    status: "yes",
    detail: "not needed: memory of templates is mapped from files, and the kernel's page cache shares it",
  }));
}

export function inspectTun(host: HostFacts): Promise<Capability> {
  return look("tun", false, async () => {
    if (await host.exists("/dev/net/tun")) return { status: "yes", detail: "/dev/net/tun" };
    return {
      status: "no",
      detail: "no /dev/net/tun",
      cost: "no networks that need a device of the host",
      remedy: "Run `modprobe tun`.",
    };
  });
}

/** Not restored by whoever switches it on: by then others may count on it. */
export function inspectForwarding(host: HostFacts): Promise<Capability> {
  return look("IPv4 forwarding", false, async () => {
    const isOn = (await host.readFile("/proc/sys/net/ipv4/ip_forward"))?.trim() === "1";
    if (isOn) return { status: "yes", detail: "on" };
    return { status: "yes", detail: "off; the first bridge network switches it on, and it stays on" };
  });
}

/** Below this a guest image, a template and a container's disk may not find room together. */
const DISK_NEEDED_MIB = 2_048;

export function inspectDiskSpace(host: HostFacts, rootDir: string): Promise<Capability> {
  return look("disk space", true, async () => {
    const freeBytes = await host.freeBytes(rootDir);
    if (freeBytes === undefined)
      throw new BelljarError("UNSUPPORTED_HOST", `the file system of ${rootDir} says nothing`);
    const freeMib = Math.floor(freeBytes / 2 ** 20);
    const detail = `${freeMib} MiB free for ${rootDir}`;
    if (freeMib >= DISK_NEEDED_MIB) return { status: "yes", detail };
    return {
      status: "degraded",
      detail,
      cost: `images, templates and what containers write may not find room; ${DISK_NEEDED_MIB} MiB are enough to begin with`,
      remedy:
        "Free some space, or use a `--root` on a larger file system; `belljar image prune` removes what is not used.",
    };
  });
}
