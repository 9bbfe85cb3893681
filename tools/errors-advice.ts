/**
 * What to do about errors whose reason prints no remedy, because it would only repeat the message, or because it depends on what was
 * done. For docs/reference/errors.md; every reason has the one or the other.
 */
import { type ErrorReason, errorReasons } from "../src/base/error-reasons.ts";

const advice: Readonly<Partial<Record<ErrorReason, string>>> = {
  AGENT_DISCONNECTED:
    "It is made again by itself while the VM runs; whether the call was done, `belljar inspect` shows.",
  AGENT_FAILED: "The message has what the agent said; the sandbox runs on.",
  AGENT_PROTOCOL: "The sandbox runs on. A guest that was taken over does this; if yours was not, please report it.",
  AGENT_TIMEOUT:
    "Mostly the host is overloaded, or the guest has no memory left. The sandbox runs on; try again, or stop it.",
  CANCELLED: "Nothing: what the call had begun was undone.",
  COMMAND_NOT_EXECUTABLE: "Check its mode, its interpreter, and that it is made for x86_64.",
  COMMAND_NOT_FOUND: "Check the name, and PATH in the container; `belljar cp` and images bring programs there.",
  CONTAINER_START_FAILED:
    "The message has what the guest said; the container is stopped, and can be started again or deleted.",
  DAEMON_STOPPED: "The next command starts another daemon; whether the call was done, `belljar ps -a` shows.",
  DEADLINE_EXCEEDED: "Mostly the host is overloaded: try again when it is less so.",
  DEVICE_FAILED: "The causes have what the kernel said; `dmesg` on the host has more.",
  DEVICE_IN_USE: "Unmount it on the host, or take it from the other sandbox (`belljar device rm`).",
  DEVICE_NOT_FOUND: "Check the path or address on the host; what a sandbox has, `belljar device ls` shows.",
  DEVICE_REFUSED: "What uses the device in the guest must let go of it first; nothing was changed.",
  DEVICE_UNSUPPORTED: "docs/guides/storage-and-devices.md says which kinds there are.",
  DISK_INVALID: "The message says what is wrong with it; `qemu-img info` shows what it is.",
  FILE_BUSY: "Try again when nothing is mounted there and nobody writes to it.",
  FILE_EXISTS: "Remove it first, or choose another path.",
  FILE_NOT_FOUND: "Check the path; relative ones begin at the container's root.",
  FILE_READ_ONLY: "Write to a volume or a tmpfs, or run the container without `--read-only`.",
  FILE_SYSTEM_UNKNOWN: "Make one on it (`mkfs.ext4`), or say which it has with `fstype=`.",
  GUEST_BUILD_FAILED: "The causes say which step failed; `belljar guest build` begins it again.",
  GUEST_PANIC: "The sandbox has stopped; `belljar start` boots it again, with its disks as they were.",
  HOST_TOOL_FAILED: "The message has the end of what the program said. `belljar doctor` shows which programs are used.",
  IMAGE_HOSTILE: "Nothing of it was kept. Whoever made it may mean harm.",
  IMAGE_INVALID: "The message names what is wrong; have the image made again, or import it as another `--kind`.",
  IMAGE_PULL_FAILED:
    "The message has what the registry said. Check the name, the network, and the credentials (`--auth-file`).",
  IMAGE_UNSUPPORTED: "The message names the format or architecture; images for linux/amd64 are supported.",
  INTERFACE_NOT_FOUND:
    "`belljar network interface ls` shows those of the sandbox, `ip -n NAMESPACE link` those that it could have.",
  INVALID_ARGUMENT: "The message names the value, and mostly what it may be; `belljar COMMAND --help` has the rest.",
  INVALID_TRANSITION: "The message names the state, and the states that allow it; `belljar ps -a` shows all.",
  IS_A_DIRECTORY: "Name a file in it.",
  LOCKED: "Wait for the other process, or end it; the message says which file it holds.",
  MOUNT_SOURCE_MISSING: "Check the path on the host; `-v` makes a directory that is missing, `--mount` does not.",
  MOUNT_UNSUPPORTED: "docs/guides/storage-and-devices.md says what can be mounted, and how.",
  NETWORK_FAILED:
    "The causes name the step; `belljar doctor` looks into the programs that it needs. Nothing of the network is left.",
  NOT_A_DIRECTORY: "Check the path: something above its end, or at it, is no directory.",
  NOT_A_FILE: "Name a regular file; directories are copied with `belljar cp`.",
  NOT_CHECKPOINTABLE:
    "The message names everything that stands in the way; docs/guides/checkpoints.md says what to do about each.",
  PATH_INVALID:
    "The message says what is wrong with the path; absolute ones without NUL and of at most 4,096 bytes are taken.",
  PROCESS_NOT_FOUND: "It has ended and was released; `processes()` lists those that are there.",
  READ_ONLY: "Mount it for writing, or use a `--root` elsewhere.",
  STATE_CORRUPT:
    "It is left untouched: put it back from a backup, or remove the sandbox's directory while no daemon runs.",
  STATE_MISSING: "Put it back from a backup; `belljar prune` says what was found and what became of it.",
  TEMPLATE_FAILED: "The causes say which step failed; sandboxes start all the same, from a kernel that they boot.",
  UNSUPPORTED_HOST: "`belljar doctor` says what is missing; Belljar runs on Linux on x86_64.",
  VMM_DIED:
    "`belljar inspect` and the log of the daemon say what ended it; `belljar start` boots the sandbox again, with its disks as they were.",
  VMM_PROTOCOL:
    "It is a fault of Belljar, or a QEMU that is too new or too old; please report it with the version that `belljar doctor` shows.",
  VMM_START_FAILED: "The causes have what QEMU said; `belljar doctor` looks into QEMU and acceleration.",
};

export function whatToDo(reason: ErrorReason): string {
  const text = errorReasons[reason].remedy ?? advice[reason];
  if (text !== undefined) return text;
  throw new Error(`${reason} has neither a remedy nor advice: write one in tools/errors-advice.ts`);
}
