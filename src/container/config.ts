/** What a caller asks of a container. Everything is optional: the image, and docker's habits, say the rest. */

import type { ContainerDeviceConfig } from "./device-config.ts";
import type { MountConfig } from "./mount-config.ts";
import type { RlimitConfig } from "./rlimits.ts";

export interface ProcessConfig {
  /** Program and arguments. */
  readonly command?: readonly string[] | undefined;
  /** `K=V`, or `K` alone for the value that `clientEnvironment` has. */
  readonly env?: readonly string[] | undefined;
  /** Where `K` alone takes its value from. */
  readonly clientEnvironment?: Readonly<Record<string, string | undefined>> | undefined;
  /** Absolute path in the container. */
  readonly workingDir?: string | undefined;
  /** `user`, `uid`, either with `:group` or `:gid`; names are looked up in the container's own files. */
  readonly user?: string | undefined;
  readonly tty?: boolean | undefined;
  readonly capAdd?: readonly string[] | undefined;
  readonly capDrop?: readonly string[] | undefined;
}

/** What a container may use of its sandbox. Where nothing is said, the sandbox's VM is the limit; so it is again after 0 bytes, CPUs or processes. */
export interface ContainerLimits {
  readonly memoryBytes?: number | undefined;
  /** CPUs, fractions allowed. */
  readonly cpus?: number | undefined;
  /** 1 to 10000, as cgroup v2 has it. */
  readonly cpuWeight?: number | undefined;
  /** As the kernel writes it: `0-2,4`. */
  readonly cpuset?: string | undefined;
  readonly pids?: number | undefined;
}

export interface ContainerConfig extends ProcessConfig {
  /** In place of the image's; an empty list removes it, and the image's command with it. */
  readonly entrypoint?: readonly string[] | undefined;
  readonly readOnly?: boolean | undefined;
  /** The first process has an open standard input, for whoever attaches; otherwise it reads /dev/null. */
  readonly stdin?: boolean | undefined;
  /** Instead of the image's command, a process that only waits: the container is there to be used by `exec`. */
  readonly keepAlive?: boolean | undefined;
  /** What `stop` sends; the image's, or SIGTERM. */
  readonly stopSignal?: string | undefined;
  readonly limits?: ContainerLimits | undefined;
  /** `no-new-privileges`, `seccomp=unconfined`; a profile of one's own goes into `seccompProfile`. */
  readonly securityOptions?: readonly string[] | undefined;
  /** The text of a seccomp profile, in the OCI runtime specification's form or docker's. */
  readonly seccompProfile?: string | undefined;
  readonly pidsLimit?: number | undefined;
  /** Size of /dev/shm. */
  readonly shmBytes?: number | undefined;
  /** `DIR` or `DIR:options`. */
  readonly tmpfs?: readonly string[] | undefined;
  readonly mounts?: readonly MountConfig[] | undefined;
  readonly rlimits?: readonly RlimitConfig[] | undefined;
  readonly devices?: readonly ContainerDeviceConfig[] | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  /**
   * PCI devices of the host that it gets, with everything that shares their IOMMU group: addresses (`0000:03:00.0`), or files of
   * groups (`/dev/vfio/12`).
   */
  readonly pciDevices?: readonly string[] | undefined;
}

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}
