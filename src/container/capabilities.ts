/** Which capabilities a container's processes have: docker's fourteen, and what the caller adds and drops. */
import { BelljarError } from "../base/index.ts";

/** Every capability of Linux 6.1, in the order of their numbers. */
const ALL_CAPABILITIES = [
  ...["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"],
  ...["LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"],
  ...["SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"],
  ...["SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"],
  ...["MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"],
  "CHECKPOINT_RESTORE",
].map((name) => `CAP_${name}`);

const DEFAULT_CAPABILITIES = [
  ...["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"],
  ...["NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"],
].map((name) => `CAP_${name}`);

/**
 * The set that remains of `own`, docker's default unless told: `ALL` on either side means all; a capability that is both added
 * and dropped by name is added, as docker has it.
 * @throws BelljarError `INVALID_ARGUMENT`, naming the capability.
 */
export function resolveCapabilities(
  add: readonly string[],
  drop: readonly string[],
  own: readonly string[] = DEFAULT_CAPABILITIES,
): readonly string[] {
  const added = add.map((name) => canonicalName(name, "--cap-add"));
  const dropped = drop.map((name) => canonicalName(name, "--cap-drop"));
  const start = added.includes("ALL") ? ALL_CAPABILITIES : dropped.includes("ALL") ? [] : own;
  const kept = start.filter((name) => !dropped.includes(name));
  const wanted = new Set([...kept, ...added.filter((name) => name !== "ALL")]);
  return ALL_CAPABILITIES.filter((name) => wanted.has(name));
}

function canonicalName(name: string, flag: string): string {
  const upper = name.toUpperCase();
  if (upper === "ALL") return upper;
  const full = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  if (ALL_CAPABILITIES.includes(full)) return full;
  throw new BelljarError("INVALID_ARGUMENT", `${flag} ${JSON.stringify(name.slice(0, 60))} is not a capability`, {
    remedy: "Use ALL or a name from capabilities(7), such as NET_ADMIN.",
  });
}
