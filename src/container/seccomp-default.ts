/**
 * The default seccomp profile. A list of what is denied, not of what is allowed, for one reason: the guest's kernel is ours
 * and known, so either kind of list names every system call exactly, and the shorter filter is the quicker one to compile in an
 * emulated guest. What is denied follows docker's default profile; a capability that the container has opens what belongs to it.
 */

export interface SeccompArgument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: string;
}

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly SeccompArgument[];
}

export interface SeccompProfile {
  readonly defaultAction: string;
  readonly architectures?: readonly string[];
  readonly syscalls: readonly SeccompRule[];
}

const EPERM = 1;
const ENOSYS = 38;

/** Denied whatever capabilities the container has. */
const ALWAYS_DENIED = [
  // Keyrings are not namespaced.
  ...["add_key", "keyctl", "request_key"],
  // Another kernel.
  ...["kexec_load", "kexec_file_load"],
  // Obsolete, or a history of holes that outweighs any use in a container.
  ...["_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "sysfs", "uselib", "ustat"],
  ...["lookup_dcookie", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"],
  // The sandbox's resources, not the container's.
  ...["swapon", "swapoff", "move_pages", "migrate_pages", "pivot_root"],
];

/** Denied unless the container has the capability. */
const DENIED_WITHOUT: Readonly<Record<string, readonly string[]>> = {
  CAP_SYS_ADMIN: [
    ...[
      "fanotify_init",
      "fsconfig",
      "fsmount",
      "fsopen",
      "fspick",
      "mount",
      "mount_setattr",
      "move_mount",
      "open_tree",
    ],
    ...["quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "umount2", "unshare"],
  ],
  CAP_BPF: ["bpf"],
  CAP_PERFMON: ["perf_event_open"],
  CAP_DAC_READ_SEARCH: ["open_by_handle_at"],
  CAP_SYS_BOOT: ["reboot"],
  CAP_SYS_MODULE: ["delete_module", "init_module", "finit_module"],
  CAP_SYS_NICE: ["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"],
  CAP_SYS_PACCT: ["acct"],
  CAP_SYS_PTRACE: ["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"],
  CAP_SYS_RAWIO: ["iopl", "ioperm"],
  CAP_SYS_TIME: ["settimeofday", "clock_settime", "adjtimex", "clock_adjtime"],
  CAP_SYS_TTY_CONFIG: ["vhangup"],
  CAP_SYSLOG: ["syslog"],
};

/** CAP_SYS_ADMIN contains these two, as it did before they were split off. */
const ALSO_OPENED_BY_SYS_ADMIN = ["CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"];

/** CLONE_NEW* flags of clone(2): mount, cgroup, UTS, IPC, user, PID, network. */
const NAMESPACE_FLAGS = [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

const AF_VSOCK = 40;

/** personality(2): no random addresses, page zero mapped, old layout, readable is executable: each undoes a hardening. */
const PERSONALITY_FLAGS = [0x0004_0000, 0x0010_0000, 0x0020_0000, 0x0040_0000];
/** Set in 0xffffffff alone, which asks for the present personality and changes nothing. */
const PERSONALITY_QUERY_BIT = 0x8000_0000;

export function defaultSeccompProfile(capabilities: readonly string[]): SeccompProfile {
  const has = (name: string): boolean =>
    capabilities.includes(name) || (ALSO_OPENED_BY_SYS_ADMIN.includes(name) && capabilities.includes("CAP_SYS_ADMIN"));
  const denied = [
    ...ALWAYS_DENIED,
    ...Object.entries(DENIED_WITHOUT).flatMap(([capability, names]) => (has(capability) ? [] : names)),
  ];
  const rules: SeccompRule[] = [
    { names: denied, action: "SCMP_ACT_ERRNO", errnoRet: EPERM },
    // The guest's own channels to the host are not the workload's.
    {
      names: ["socket"],
      action: "SCMP_ACT_ERRNO",
      errnoRet: EPERM,
      args: [{ index: 0, value: AF_VSOCK, op: "SCMP_CMP_EQ" }],
    },
  ];
  for (const flag of PERSONALITY_FLAGS) {
    rules.push({
      names: ["personality"],
      action: "SCMP_ACT_ERRNO",
      errnoRet: EPERM,
      args: [{ index: 0, value: flag + PERSONALITY_QUERY_BIT, valueTwo: flag, op: "SCMP_CMP_MASKED_EQ" }],
    });
  }
  if (!has("CAP_SYS_ADMIN")) {
    for (const flag of NAMESPACE_FLAGS) {
      rules.push({
        names: ["clone"],
        action: "SCMP_ACT_ERRNO",
        errnoRet: EPERM,
        args: [{ index: 0, value: flag, valueTwo: flag, op: "SCMP_CMP_MASKED_EQ" }],
      });
    }
    // Its flags stand in memory where no filter can see them; "not implemented" makes every libc fall back to clone.
    rules.push({ names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS });
  }
  return {
    defaultAction: "SCMP_ACT_ALLOW",
    // 32-bit and x32 calls have other numbers and would walk past the list: without an entry here they are killed.
    architectures: ["SCMP_ARCH_X86_64"],
    syscalls: rules,
  };
}
