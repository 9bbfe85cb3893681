/** The mounts of a container: what the OCI specification demands of a Linux system, and the caller's. */
import { BelljarError } from "../base/index.ts";
import type { ContainerConfig } from "./config.ts";
import { checkTarget } from "./mount-check.ts";
import type { MountState } from "./mount-config.ts";
import { specMounts } from "./mount-place.ts";
import type { OciMount } from "./oci-spec.ts";

const SHM_DEFAULT_BYTES = 64 * 1024 * 1024;
const TMPFS_FLAGS = new Set(["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"]);
const TMPFS_VALUES = /^(?:size=\d+[kmg%]?|mode=[0-7]{3,4}|uid=\d+|gid=\d+|nr_inodes=\d+[kmg]?)$/i;

/** A place in another mount comes after it; a caller's mount takes the place of the system's. */
export function buildMounts(options: ContainerConfig, mounts: readonly MountState[]): readonly OciMount[] {
  const own = [...(options.tmpfs ?? []).map(tmpfsMount), ...specMounts(mounts)];
  const taken = new Set(own.map(({ destination }) => destination));
  const system = systemMounts(options.shmBytes ?? SHM_DEFAULT_BYTES);
  return [
    ...system.filter(({ destination }) => !taken.has(destination)),
    ...own.toSorted((a, b) => a.destination.split("/").length - b.destination.split("/").length),
  ];
}

/** Where the caller's tmpfs go. @throws BelljarError `INVALID_ARGUMENT` */
export function tmpfsTargets(options: ContainerConfig): readonly string[] {
  return (options.tmpfs ?? []).map((text) => checkTarget(tmpfsMount(text).destination));
}

function systemMounts(shmBytes: number): readonly OciMount[] {
  const mount = (destination: string, type: string, source: string, options: readonly string[]): OciMount => ({
    destination,
    type,
    source,
    options,
  });
  return [
    mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    mount("/dev/shm", "tmpfs", "shm", [
      "nosuid",
      "noexec",
      "nodev",
      "mode=1777",
      `size=${Math.ceil(shmBytes / 1024)}k`,
    ]),
    mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
  ];
}

function tmpfsMount(text: string): OciMount {
  const at = text.indexOf(":");
  const destination = at === -1 ? text : text.slice(0, at);
  if (!destination.startsWith("/") || destination === "/" || destination.includes("\0")) {
    throw new BelljarError("INVALID_ARGUMENT", `--tmpfs ${JSON.stringify(text)} does not begin with an absolute path`);
  }
  const asked = at === -1 ? [] : text.slice(at + 1).split(",");
  const unknown = asked.find((option) => !TMPFS_FLAGS.has(option) && !TMPFS_VALUES.test(option));
  if (unknown !== undefined) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      `--tmpfs ${destination} has an unknown option ${JSON.stringify(unknown)}`,
      {
        remedy: `Use ${[...TMPFS_FLAGS].join(", ")}, size=, mode=, uid=, gid= or nr_inodes=.`,
      },
    );
  }
  // Docker's defaults; what is asked comes later and wins.
  return { destination, type: "tmpfs", source: "tmpfs", options: ["noexec", "nosuid", "nodev", ...asked] };
}
