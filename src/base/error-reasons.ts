/** The closed lists of error codes and reasons. docs/reference/errors.md is generated from this file. */

/** Connect's sixteen codes; nothing else ever crosses the API. */
export type ErrorCode =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

interface ReasonEntry {
  readonly code: ErrorCode;
  /** What happened, for the errors page. */
  readonly meaning: string;
  /** What the user can do, printed below the error. */
  readonly remedy?: string;
}

function reasons<const T extends Record<string, ReasonEntry>>(table: T): { readonly [K in keyof T]: ReasonEntry } {
  return table;
}

export const errorReasons = reasons({
  // --- the caller ---
  INVALID_ARGUMENT: { code: "invalid_argument", meaning: "An option or argument has a value that cannot be used." },
  CANCELLED: {
    code: "canceled",
    meaning: "The caller gave up: a signal, an aborted AbortSignal, a closed connection.",
  },
  DEADLINE_EXCEEDED: { code: "deadline_exceeded", meaning: "A step did not end within its time limit." },
  PERMISSION_DENIED: {
    code: "permission_denied",
    meaning: "The operating system refused an operation for lack of rights.",
    remedy: "Run as root, or give this user the right that is named; `belljar doctor` lists what is needed.",
  },
  INTERNAL: {
    code: "internal",
    meaning: "Something happened that Belljar's authors did not expect.",
    remedy: "Please report it with the output of the same command under `--log-level debug`.",
  },

  // --- the host ---
  DISK_FULL: {
    code: "resource_exhausted",
    meaning: "A file system of the host has no room left.",
    remedy: "Free some space on the file system that is named, then try again; nothing was left behind.",
  },
  DISK_FAILED: {
    code: "internal",
    meaning: "The host could not read or write a file: an I/O error.",
    remedy: "Look at the host's kernel log; the disk that holds the file may be failing.",
  },
  READ_ONLY: { code: "failed_precondition", meaning: "A file system of the host is mounted read-only." },
  HOST_TOOL_MISSING: {
    code: "failed_precondition",
    meaning: "A program that Belljar calls is not installed.",
    remedy: "Run `npm start` in a clone, or install the Debian package that is named.",
  },
  HOST_TOOL_FAILED: { code: "internal", meaning: "A program that Belljar calls ended with an error." },
  UNSUPPORTED_HOST: { code: "failed_precondition", meaning: "This system or architecture cannot run Belljar." },

  // --- guest image ---
  GUEST_IMAGE_MISSING: {
    code: "failed_precondition",
    meaning: "No guest image has been built on this host.",
    remedy: "Run `belljar guest build`.",
  },
  GUEST_IMAGE_CORRUPT: {
    code: "data_loss",
    meaning: "A file of the guest image is not what its manifest says.",
    remedy: "Run `belljar guest build --force` to build it again.",
  },
  GUEST_BUILD_FAILED: { code: "internal", meaning: "The guest image could not be built." },

  // --- hypervisor ---
  VMM_MISSING: {
    code: "failed_precondition",
    meaning: "QEMU is not installed, or not where it was said to be.",
    remedy: "Install the package qemu-system-x86, or run `npm start` in a clone.",
  },
  VMM_TOO_OLD: {
    code: "failed_precondition",
    meaning: "The installed QEMU is older than Belljar can use.",
    remedy: "Install QEMU 7.2 or newer.",
  },
  VMM_START_FAILED: { code: "unavailable", meaning: "QEMU ended, or did not answer, while it was starting." },
  VMM_DIED: { code: "aborted", meaning: "The VM's process ended while it was needed." },
  VMM_SILENT: {
    code: "unavailable",
    meaning: "The VM's process is there, and has not answered yet: its host may have too much to do.",
    remedy: "Try again in a moment.",
  },
  VMM_PROTOCOL: { code: "internal", meaning: "QEMU refused a command, or answered with something that is not QMP." },
  ACCELERATION_UNAVAILABLE: {
    code: "failed_precondition",
    meaning: "The acceleration asked for does not work on this host.",
    remedy: "Use `--accel auto`, or see `belljar doctor`.",
  },
  NOT_CHECKPOINTABLE: {
    code: "failed_precondition",
    meaning: "A device of the VM has state that cannot be saved.",
  },
  CHECKPOINT_NOT_FOUND: {
    code: "not_found",
    meaning: "There is no checkpoint of this name or id.",
    remedy: "List them with `belljar checkpoint ls`.",
  },
  CHECKPOINT_AMBIGUOUS: {
    code: "invalid_argument",
    meaning: "Several checkpoints begin with these letters.",
    remedy: "Give more of the id.",
  },
  CHECKPOINT_EXISTS: {
    code: "already_exists",
    meaning: "Another checkpoint has this name.",
    remedy: "Choose another name, or remove that one with `belljar checkpoint rm`.",
  },
  CHECKPOINT_IN_USE: {
    code: "failed_precondition",
    meaning: "Sandboxes are being started from the checkpoint at this moment.",
    remedy: "Wait until they run, then try again.",
  },
  CHECKPOINT_INCOMPLETE: {
    code: "data_loss",
    meaning: "A file of the checkpoint is missing, or cut short.",
    remedy: "It cannot be restored; remove it, or take it in again from a file that is whole.",
  },
  CHECKPOINT_CORRUPT: {
    code: "data_loss",
    meaning: "A file of the checkpoint is not what its manifest says.",
    remedy: "It cannot be restored; remove it with `belljar checkpoint rm`.",
  },
  HOOK_FAILED: {
    code: "failed_precondition",
    meaning: "A program that an image has for the moment after a restore or fork failed, or did not end in time.",
    remedy: "Correct `/etc/belljar/hooks/after-restore` in the container, and save the sandbox anew.",
  },
  CHECKPOINT_MISMATCH: {
    code: "failed_precondition",
    meaning: "The checkpoint was taken under another hypervisor, CPU or configuration than this host has.",
    remedy: "`belljar restore --dry-run` says everything that does not fit.",
  },
  SHARED_MEMORY_NEEDED: {
    code: "failed_precondition",
    meaning: "A vhost-user device needs a VM whose memory other programs can map, which is decided when it starts.",
    remedy: "Create the sandbox with `--vhost-user`.",
  },
  TOO_MANY_DEVICES: {
    code: "resource_exhausted",
    meaning: "The VM has no room left for a device of this kind.",
    remedy: "Remove a device first; see `belljar device ls`.",
  },
  DISK_INVALID: {
    code: "invalid_argument",
    meaning: "A file or device cannot be a disk: empty, cut short, of another format, or pointing at other files.",
  },
  DISK_IN_USE: {
    code: "failed_precondition",
    meaning: "Another program, perhaps another sandbox, has the disk open; written by two it would be destroyed.",
    remedy: "Detach it there first, or add it read-only on both sides.",
  },
  DEVICE_REFUSED: { code: "failed_precondition", meaning: "The guest refused a device, or refused to let go of one." },
  IOMMU_UNAVAILABLE: {
    code: "failed_precondition",
    meaning: "The host has no IOMMU that would keep a device's memory accesses inside the guest.",
    remedy:
      "Switch VT-d or AMD-Vi on in the firmware, and boot the host's kernel with `intel_iommu=on` or `amd_iommu=on`; see `belljar doctor`.",
  },
  VFIO_UNAVAILABLE: {
    code: "failed_precondition",
    meaning: "The host's kernel cannot hand devices to other programs: a module is not loaded.",
    remedy: "Run `modprobe -a vfio-pci vfio_iommu_type1`.",
  },
  GROUP_NOT_VIABLE: {
    code: "failed_precondition",
    meaning: "A device shares its IOMMU group with another one that a driver of the host still has.",
    remedy: "Take those that are named from their drivers, or put the device into a slot with a group of its own.",
  },
  NOT_ENOUGH_MEMORY: {
    code: "resource_exhausted",
    meaning: "The host has not enough free memory for the VM asked for.",
    remedy: "Ask for less with `-m`, or free some memory.",
  },

  // --- devices ---
  DEVICE_NOT_FOUND: { code: "not_found", meaning: "The host has no such device, or it has gone." },
  DEVICE_IN_USE: {
    code: "failed_precondition",
    meaning: "The host, another program or another sandbox uses the device.",
  },
  DEVICE_UNSUPPORTED: { code: "unimplemented", meaning: "Belljar cannot hand a device of this kind to a guest." },
  DEVICE_FAILED: { code: "internal", meaning: "The host's kernel, or a driver of it, did not go along." },

  // --- network ---
  PORT_IN_USE: {
    code: "failed_precondition",
    meaning: "A port of the host that was to be published is taken.",
    remedy: "Choose another one, or leave the host's port out to be given a free one.",
  },
  NETWORK_UNAVAILABLE: {
    code: "failed_precondition",
    meaning: "This host cannot give a sandbox a network of the kind that was asked for.",
    remedy: "Do what the message says, or choose another kind with `--network`; `belljar doctor` lists what is needed.",
  },
  NAMESPACE_INVALID: {
    code: "failed_precondition",
    meaning: "The network namespace that was named is missing, is gone, is none, or is the host's own.",
    remedy: "Name one that is there: `ip netns list` shows those with a name, in /run/netns.",
  },
  NETWORK_IN_USE: {
    code: "failed_precondition",
    meaning: "The network namespace that was named is another sandbox's.",
    remedy: "Delete that sandbox, or name another namespace.",
  },
  INTERFACE_NOT_FOUND: {
    code: "not_found",
    meaning: "The sandbox, or its network namespace, has no interface of that name.",
  },
  NETWORK_FAILED: { code: "internal", meaning: "A step in making or configuring a network failed." },
  NO_FREE_ADDRESS: {
    code: "resource_exhausted",
    meaning: "Every address of the bridge is given to a sandbox.",
    remedy: "Stop or delete sandboxes that are not needed.",
  },

  // --- templates ---
  TEMPLATE_NOT_FOUND: {
    code: "not_found",
    meaning: "No template has this digest or name.",
    remedy: "See `belljar template ls`.",
  },
  TEMPLATE_CORRUPT: {
    code: "data_loss",
    meaning: "A file of a template is missing, or not as long as it was. Sandboxes boot without a template meanwhile.",
    remedy: "Remove it with `belljar template rm`; the next sandbox makes a new one.",
  },
  TEMPLATE_FAILED: {
    code: "internal",
    meaning: "A guest was frozen, and a copy of it did not come to life. Sandboxes boot without a template then.",
  },

  // --- guest and agent ---
  GUEST_PANIC: { code: "aborted", meaning: "The guest's kernel panicked." },
  AGENT_TIMEOUT: { code: "deadline_exceeded", meaning: "The guest's agent did not answer within its time limit." },
  AGENT_VERSION: {
    code: "failed_precondition",
    meaning: "Host and agent speak different versions of their protocol.",
    remedy: "Run `belljar guest build` so that both come from one version.",
  },
  AGENT_PROTOCOL: {
    code: "data_loss",
    meaning: "The guest sent something that breaks the protocol; the link was closed.",
  },
  AGENT_DISCONNECTED: { code: "unavailable", meaning: "The link to the guest's agent was lost." },
  RESIZE_REFUSED: {
    code: "resource_exhausted",
    meaning:
      "The guest did not take all the memory or CPUs that it was given, or did not give back what was to be taken away.",
    remedy: "To take away: end what uses it in the sandbox, or stop the sandbox and start it smaller.",
  },
  AGENT_FAILED: { code: "internal", meaning: "The agent could not do what it was asked." },

  // --- images ---
  IMAGE_NOT_FOUND: {
    code: "not_found",
    meaning: "No image has this name here.",
    remedy: "See `belljar image ls`, or get it with `belljar image pull`.",
  },
  IMAGE_INVALID: {
    code: "invalid_argument",
    meaning: "The image is malformed: a missing part, a wrong digest, a configuration that cannot be read.",
  },
  IMAGE_HOSTILE: {
    code: "invalid_argument",
    meaning: "An archive has an entry that would reach outside its root, lie about its size, or exceed a limit.",
  },
  IMAGE_UNSUPPORTED: {
    code: "unimplemented",
    meaning: "The image is of a kind that Belljar does not run (another architecture, an unknown layer type).",
  },
  IMAGE_PULL_FAILED: { code: "unavailable", meaning: "The registry could not be reached, or refused." },
  IMAGE_IN_USE: {
    code: "failed_precondition",
    meaning: "A sandbox uses this image.",
    remedy: "Delete the sandboxes that use it first, or use `--force`: its layers stay as long as they do.",
  },

  // --- containers ---
  COMMAND_NOT_FOUND: { code: "not_found", meaning: "The command does not exist in the container (exit status 127)." },
  COMMAND_NOT_EXECUTABLE: {
    code: "failed_precondition",
    meaning: "The command exists in the container but cannot be executed (exit status 126).",
  },
  CONTAINER_NOT_FOUND: {
    code: "not_found",
    meaning: "No container has this id.",
    remedy: "`belljar inspect SANDBOX` names its containers.",
  },
  CONTAINER_EXISTS: {
    code: "already_exists",
    meaning: "A container with this id exists already.",
    remedy: "Choose another name, or delete that one with `belljar rm SANDBOX/CONTAINER`.",
  },
  PROCESS_NOT_FOUND: { code: "not_found", meaning: "No process has this id in the container." },
  USER_NOT_FOUND: {
    code: "not_found",
    meaning: "The user or group does not exist in the container's own files.",
    remedy: "Name one of the container's own /etc/passwd and /etc/group, or give numbers.",
  },
  CONTAINER_START_FAILED: { code: "internal", meaning: "The container could not be started." },
  OUTPUT_TOO_LARGE: {
    code: "resource_exhausted",
    meaning: "A command wrote more than `exec` keeps in memory; the command was ended.",
    remedy: "Use `spawn`, and read its streams.",
  },
  INVALID_TRANSITION: { code: "failed_precondition", meaning: "The operation is not allowed in the present state." },
  SANDBOX_NOT_FOUND: { code: "not_found", meaning: "No sandbox has this name or id.", remedy: "See `belljar ps -a`." },
  SANDBOX_AMBIGUOUS: {
    code: "invalid_argument",
    meaning: "The beginning of an id was given, and several sandboxes or containers have it.",
    remedy: "Give more digits of the id, or the name.",
  },
  SANDBOX_EXISTS: {
    code: "already_exists",
    meaning: "A sandbox with this name exists already.",
    remedy: "Choose another name, or delete that one with `belljar rm`.",
  },

  // --- volumes and mounts ---
  VOLUME_NOT_FOUND: { code: "not_found", meaning: "No volume has this name.", remedy: "See `belljar volume ls`." },
  VOLUME_EXISTS: {
    code: "already_exists",
    meaning: "A volume with this name exists already, and is another one.",
    remedy: "Choose another name, or look at that one with `belljar volume inspect`.",
  },
  VOLUME_IN_USE: {
    code: "failed_precondition",
    meaning: "Another sandbox uses this volume or disk, or a container still refers to it.",
    remedy:
      "Stop or delete the sandbox that is named; several may share a volume only if all of them mount it read-only.",
  },
  MOUNT_SOURCE_MISSING: { code: "not_found", meaning: "What is to be mounted does not exist on the host." },
  MOUNT_TOO_LARGE: {
    code: "resource_exhausted",
    meaning: "What is to be copied into the guest is larger than a copied mount may be.",
    remedy: "Mount it as a disk (`how=disk`) or live (`how=live`).",
  },
  FILE_SYSTEM_UNKNOWN: {
    code: "invalid_argument",
    meaning: "A disk has no file system that the guest can mount.",
  },
  MOUNT_UNSUPPORTED: { code: "unimplemented", meaning: "A mount asks for what a VM cannot do." },

  // --- files in containers ---
  FILE_NOT_FOUND: { code: "not_found", meaning: "Nothing is at this path in the container." },
  FILE_EXISTS: { code: "already_exists", meaning: "Something is at this path already." },
  NOT_A_DIRECTORY: { code: "failed_precondition", meaning: "A path needs a directory where something else is." },
  IS_A_DIRECTORY: { code: "failed_precondition", meaning: "A directory is where a file is needed." },
  NOT_A_FILE: {
    code: "failed_precondition",
    meaning: "A device, socket, fifo or link is where a file is needed; such are never opened.",
  },
  DIRECTORY_NOT_EMPTY: {
    code: "failed_precondition",
    meaning: "A directory that has something in it was to be removed or replaced.",
    remedy: "Remove it with everything in it: `recursive`.",
  },
  PATH_INVALID: {
    code: "invalid_argument",
    meaning:
      "A path is too long or too deep, goes through too many links, or leads into a file system that is the kernel's own.",
  },
  FILE_READ_ONLY: { code: "failed_precondition", meaning: "A file system in the container is mounted read-only." },
  FILE_BUSY: {
    code: "failed_precondition",
    meaning:
      "Something is mounted at this path in the container, its kernel refuses to change it, or it changes while it is read.",
  },
  FILE_TOO_LARGE: {
    code: "resource_exhausted",
    meaning: "A file or directory has more in it than is read at once.",
    remedy: "Read a large file as a stream.",
  },
  CONTAINER_DISK_FULL: {
    code: "resource_exhausted",
    meaning:
      "A file system in the container has no room left; a file that was being written there is as it was before.",
    remedy: "Free some space in the container, or give it a larger disk with `--storage-size`.",
  },

  // --- the daemon ---
  DAEMON_UNAVAILABLE: {
    code: "unavailable",
    meaning: "The daemon of this root could not be reached in time; what was asked for was not done.",
    remedy: "See `belljar daemon status`; `belljar daemon run` shows what it says.",
  },
  DAEMON_START_FAILED: {
    code: "unavailable",
    meaning: "A daemon was started, and ended before it could be used.",
    remedy: "Run `belljar daemon run` to see why, or look into belljard.log in the root.",
  },
  DAEMON_STOPPED: {
    code: "unavailable",
    meaning: "The daemon was told to stop while a call was under way; sandboxes run on.",
  },
  DAEMON_LOST: {
    code: "unavailable",
    meaning:
      "The daemon died while a call was under way that cannot be repeated: nobody knows whether it was done. Or each daemon died, again and again, before it answered one that can.",
    remedy: "Look with `belljar ps -a`, and decide.",
  },
  DAEMON_BUSY: {
    code: "resource_exhausted",
    meaning: "The daemon has as many calls, or restores that wait for their containers, under way as it takes at once.",
    remedy: "Try again when some of them have ended.",
  },

  API_VERSION: {
    code: "failed_precondition",
    meaning: "Client and daemon are of versions that do not understand one another.",
    remedy:
      "Stop the daemon with the `belljar daemon stop` of its own version; sandboxes run on, and the next call starts one of this version.",
  },
  UNAUTHENTICATED: {
    code: "unauthenticated",
    meaning: "The daemon was reached over TCP without a token, or with one that it does not have.",
    remedy: "Send `Authorization: Bearer TOKEN` with a token of the file that the daemon was given.",
  },

  // --- stored state ---
  STATE_MISSING: { code: "not_found", meaning: "A state file is absent." },
  STATE_CORRUPT: { code: "data_loss", meaning: "A state file is damaged; it was left untouched." },
  STATE_VERSION: {
    code: "failed_precondition",
    meaning: "A state file was written by a newer Belljar; it was left untouched.",
    remedy: "Use the newer Belljar.",
  },
  ROOT_LOCKED: {
    code: "unavailable",
    meaning: "Another process, usually the daemon, owns this root.",
    remedy:
      "Talk to the daemon (`belljar daemon status`), stop it with `belljar daemon stop`, or use another `--root`.",
  },
  LOCKED: { code: "unavailable", meaning: "Another process holds the lock and did not release it in time." },
});

export type ErrorReason = keyof typeof errorReasons;
