/** Every limit of Belljar, by name, with its unit and the reason for its size. A queue, buffer, retry or wait that has none here is a bug. */

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** The link between host and guest. */
export const linkLimits = {
  /** ttrpc's own bound for the data of one frame; containerd uses the same. */
  frameMaxBytes: 4 * MIB,
  /** Unary calls that may wait for an answer at once, each side: three long polls for each of `processesMax`, and some. */
  callsInFlightMax: 4_096,
  /** Bytes that may wait to be written to a connection before callers are held back. */
  sendQueueMaxBytes: 8 * MIB,
  /** Stale bytes that a new connection may throw away while it looks for the nonce. */
  nonceSkipMaxBytes: 16 * MIB,
  /** How long the first try of the nonce handshake may take; each further one twice as long, up to the limit. */
  handshakeTimeoutMs: 2_000,
  handshakeTimeoutMaxMs: 16_000,
  /** Until the hello is said again on the same connection; each time twice as long, up to the limit. A guest that runs answers in milliseconds. */
  helloRepeatMs: 50,
  helloRepeatMaxMs: 4_000,
  /** A unary call without a deadline of its own. An emulated guest under load is slow. */
  callTimeoutMs: 30_000,
  /** Longest time the guest holds a `ReadOutput` or `WaitProcess` open before it answers "nothing yet". */
  longPollMs: 20_000,
  /** How much longer than its long poll the host waits for such a call. */
  longPollSlackMs: 10_000,
  /** Pause between two tries to reach the guest's agent. */
  connectRetryMs: 10,
  /** Text of an error that comes from the guest; the rest is cut off. */
  messageMaxLength: 1_024,
} as const;

/** Streams of a process. */
export const streamLimits = {
  /** Ring per output stream in the guest: what a reader that went away can come back to. */
  ringBytes: 1 * MIB,
  /** Data in one `ReadOutput` answer or `WriteInput` request. */
  chunkMaxBytes: 256 * KIB,
  /** A client of the daemon says so often how far it is: well below the ring's size, so that the writer goes on meanwhile. */
  acknowledgeBytes: 256 * KIB,
  /** Input accepted by the guest that the process has not read yet. */
  inputBufferBytes: 512 * KIB,
  /** Requests that a reader or writer keeps under way at once: enough to hide the round trip, below the ring's size. */
  requestsAhead: 3,
  /** A reader counts as attached for so long after it last asked; while one is, a full ring stops the writer. */
  readerLeaseMs: 30_000,
  /** How often a reader that has no room says that it is still there. */
  readerRenewMs: 10_000,
  /** Each stream of a command whose output is collected in memory. */
  collectMaxBytes: 64 * MIB,
  /** Processes in one sandbox, ended ones that were not acknowledged included. */
  processesMax: 1_024,
} as const;

/** The log of what a container's first process has written, on the host's disk. */
export const logLimits = {
  /** A file above this is followed by the next. */
  fileMaxBytes: 8 * MIB,
  /** Files that are kept; the oldest falls away when one more begins. */
  filesMax: 3,
  /** Bytes of one record: what one answer of the guest holds. */
  recordMaxBytes: streamLimits.chunkMaxBytes,
  /** How far an attached reader may be behind before the process is held up. Far below what the files hold. */
  attachedLagMaxBytes: 1 * MIB,
  /** How often a pump that is held up looks whether the reader is still one that counts. */
  heldCheckMs: 1_000,
  /** Pause before a pump tries again what failed: a lost link, a full disk. */
  retryMs: 250,
} as const;

/** Files of a container, from outside. */
export const fileLimits = {
  /** As the kernel has it, for paths and for what links lead to. */
  pathMaxBytes: 4_096,
  /** Components of a resolved path; each is an open descriptor while the agent walks. */
  pathDepthMax: 128,
  /** Links followed on one path, as the kernel has it. */
  linksMax: 40,
  /** Steps that the agent has under way for one container; more wait. Times the depth, below what a process may have open. */
  stepsMax: 6,
  /** Data of one read or write. */
  chunkMaxBytes: 256 * KIB,
  /** Reads or writes of one file under way at once: enough to hide the round trip. */
  requestsAhead: 3,
  /** Entries of one page of a directory. */
  pageMaxEntries: 1_024,
  /** Entries of a directory that can be listed: each page passes over all of them. */
  directoryMaxEntries: 131_072,
  /** Open files of one container; one that nobody has used for so long is closed. */
  openMax: 64,
  openLeaseMs: 60_000,
  /** Writes that are known to be complete when somebody asks again. */
  committedMax: 256,
  /** How often one that waits for its reader or writer is said to be in use. */
  openRenewMs: 20_000,
  /** Watches of one container, and events that one of them keeps for a reader that is behind. */
  watchesMax: 32,
  watchEventsMax: 1_024,
  /** What `read` keeps in memory. */
  readMaxBytes: 64 * MIB,
  /** Directories in directories that are removed or copied as a whole. */
  treeDepthMax: 128,
  /** Removing a tree, whole. */
  removeTimeoutMs: 600_000,
} as const;

export const vmmLimits = {
  /** Put over a disk while its VM runs, and not joined since: each is a file that QEMU has open, and one more place to look into. */
  overlaysMax: 200,
  /** From spawn until QMP has answered. */
  startTimeoutMs: 20_000,
  /** One QMP command. */
  commandTimeoutMs: 10_000,
  /** One line of QMP: `query-qmp-schema` is the largest known, about 250 KB. */
  qmpLineMaxBytes: 4 * MIB,
  /** Between SIGTERM (or `quit`) and SIGKILL. */
  quitTimeoutMs: 3_000,
  /** The kernel must have removed a killed process by then. */
  killTimeoutMs: 5_000,
  /** Bytes of QEMU's own log, and of the guest's console, that are kept for error messages. */
  logTailBytes: 64 * KIB,
  /** Lines of either that an error shows. */
  logTailLines: 8,
  /** Size beyond which the VMM's log is emptied: a hostile guest can make a VMM complain for ever. */
  logMaxBytes: 1 * MIB,
  /** Between two looks at a process that is not our child, or a socket that does not exist yet. */
  pollIntervalMs: 5,
  /** The guest must let go of a disk by then. */
  unplugTimeoutMs: 10_000,
  /** Between two requests to let go of the same device: a guest that boots loses the first ones. */
  unplugRepeatMs: 1_000,
  /** QEMU must have let go of a disk's file by then, once its device is gone. */
  letGoTimeoutMs: 5_000,
  /** Between two looks at whether the guest has taken or given memory or a CPU. */
  resizePollMs: 10,
  /** Disks of one VM. */
  disksMax: 1_024,
  /** PCIe root ports of one VM, each with room for one device; `portsDefault` unless the VM is told to have others. */
  portsMax: 64,
  portsDefault: 8,
  /** Ports of its PCIe switch, where it has one: all that one bus has room for. */
  switchPortsMax: 32,
  switchPortsDefault: 8,
  /** Functions of PCI devices that one port has room for: what an address can say. */
  portFunctionsMax: 8,
  /** A driver of the host must have let go of a device, or taken it, by then. */
  driverTimeoutMs: 10_000,
  /** A VMM that has ended must have let go of its IOMMU group by then; it unmaps the guest's memory first. */
  groupFreeTimeoutMs: 5_000,
  /** Another owner that takes or returns a device: its drivers may each need their time. */
  groupLockTimeoutMs: 30_000,
  /** Memory that a VMM needs beside its guest's, for the check before a start; measured 36 MB, rounded up. */
  overheadMib: 64,
  /** From the KVM probe's start until its kernel's first word: 3.5 to 5 s in an emulated machine, the slowest that works. Waited for once. */
  kvmProbeFirstWordMs: 8_000,
  /** The probe's kernel must be up by then; measured 9 to 12 s in the emulated machine. */
  kvmProbeEndTimeoutMs: 30_000,
} as const;

/** Devices of the host, as the guest's agent looks for them. */
export const guestDeviceLimits = {
  /** A function must have appeared by then, and its drivers must have come to rest. */
  appearTimeoutMs: 10_000,
  /** Drivers count as at rest when no node has come for so long; before the first one, they have more time. */
  quietMs: 300,
  noNodesMs: 2_000,
  lookAgainMs: 20,
  /** Bridges between the root bus and a device: a switch has two. */
  hopsMax: 8,
  depthMax: 10,
  directoriesMax: 4_096,
  nodesMax: 256,
} as const;

/** What is plugged into a sandbox. */
export const deviceLimits = {
  /** From the start of a program behind a vhost-user device until its socket is there. */
  backEndStartTimeoutMs: 10_000,
  /** Between SIGTERM and SIGKILL, and from then until the kernel has removed it. */
  backEndEndTimeoutMs: 3_000,
  backEndPollMs: 5,
  /** Devices of one sandbox beside its containers' own disks. */
  devicesMax: 256,
  /** Devices that one container is given. */
  containerDevicesMax: 128,
  /** References to one device, and attachments of it. */
  holdersMax: 1_024,
  /** Nodes that the guest says one device has. */
  nodesMax: 256,
  /** New ids that are tried when one is taken. */
  idTries: 5,
} as const;

/** A sandbox's VMM on the host. */
export const resourceLimits = {
  /** Threads of a VMM: its CPUs, and those that wait for disks, of which QEMU has 64 at most. */
  vmmThreadsMax: 512,
  /** A group is free a moment after its last process has ended. */
  cgroupTries: 100,
  cgroupRetryMs: 10,
  /** Directories of one sandbox's group: one for each hierarchy. */
  cgroupDirsMax: 16,
  /** What this process's own groups are is looked up again after. */
  hierarchiesKeepMs: 1_000,
} as const;

export const sandboxLimits = {
  /** From the VM's start until the agent answers; emulated hosts under load included. */
  bootTimeoutMs: 60_000,
  memoryDefaultMib: 256,
  memoryMinMib: 128,
  memoryMaxMib: 64 * 1024,
  cpusMax: 32,
  /** Up to where a sandbox can grow while it runs, where nobody said how far: costs next to nothing, see docs/decisions/memory-growth.md. */
  memoryGrowthMib: 8 * 1024,
  cpusGrowth: 8,
  /** The guest must have taken more memory or CPUs by then, or given them back when somebody waits for that. */
  resizeTimeoutMs: 10_000,
  /** The same when nobody waits for it: a container has stopped, and what it had is not needed any more. */
  shrinkTimeoutMs: 2_000,
  /** From the start of the container runtime until it executes the command; emulated hosts under load included. */
  launchTimeoutMs: 45_000,
  /** A call that has the guest mount or launch something: longer than the guest's own limits, so that its error is the one told. */
  launchCallTimeoutMs: 60_000,
  /** A process that waits for a command has only to find it. What it is sent: as its program has it (guest-image/programs/prepared.c). */
  preparedAnswerTimeoutMs: 3_000,
  preparedMessageMaxBytes: 64 * KIB,
  preparedStringsMax: 4_096,
  /** A hotplugged disk must have appeared in the guest by then; measured up to 7 s in an emulated guest on a host overloaded sevenfold. */
  diskTimeoutMs: 20_000,
  /** Grace between the stop signal and SIGKILL, as docker has it. */
  stopGraceMs: 10_000,
  /** Size of a container's own writable disk; sparse. */
  storageDefaultBytes: 10 * GIB,
  /** Smaller ones have no room for a journal; larger ones than QEMU maps with one table of the first level are not made. */
  storageMinBytes: 16 * MIB,
  storageMaxBytes: 4_096 * GIB,
  /** A sandbox that removes itself waits so long for readers of its containers' output to come to the end. */
  lastReadersMs: 10_000,
  /** The guest must have let go of a killed process by then. */
  killTimeoutMs: 10_000,
  /** A signal to a guest, when the stop is a forced one: the guest's part in it ends with the first that is not answered. */
  forcedCallTimeoutMs: 5_000,
  /** SIGKILL to a guest that has not answered the stop signal. */
  forcedKillTimeoutMs: 2_000,
  /** Between SIGKILL of a container's processes and the end of its output: what its rings hold is a few megabytes. */
  drainTimeoutMs: 2_000,
  /** Another process that holds a sandbox's lock is only looking, or about to end. */
  lockTimeoutMs: 10_000,
  /** The owner of a root keeps a sandbox's lock for so long after an operation; shorter than anybody waits for it. */
  lockKeepMs: 1_000,
  /** A new owner that finds a sandbox locked goes on with the others after so long. */
  recoveryLockTimeoutMs: 1_500,
  /** Sandboxes whose state a new owner reads at once; each costs a child process for its lock, which is kept for its recovery. */
  recoveryReadsMax: 8,
  /** What a new owner waits for a sandbox's VMM, and for its agent; the slower ones are waited for afterwards, longer, with pauses. */
  recoveryVmmTimeoutMs: 1_500,
  recoveryAgentTimeoutMs: 3_000,
  recoveryLaterTimeoutMs: 10_000,
  recoveryAgainMs: 2_000,
  /** Agents that a new owner asks at once, for each CPU of the host: a hundred emulated guests that answer together are all late. */
  recoveryAgentsPerCpu: 2,
  /** How far the guest's clock may be off once it was told the time, and how often it is told when a call was long on its way. */
  clockOffMaxMs: 40,
  clockTriesMax: 3,
  /** Containers of one sandbox. */
  containersMax: 100,
  /** Annotations of one sandbox or container, and the length of one of them. */
  annotationsMax: 256,
  /** The longest argument or environment variable that Linux passes on, in bytes with its end mark (MAX_ARG_STRLEN). */
  argumentMaxBytes: 128 * KIB,
  annotationMaxLength: 4_096,
  swapMaxBytes: 64 * GIB,
  sharedMemoryMaxBytes: 64 * GIB,
  dnsEntriesMax: 16,
  /** How often a sandbox is looked at, and how many looks in a row must fail. */
  monitorIntervalMs: 5_000,
  monitorFailures: 3,
  /** How long a copy of a sandbox is not looked at: it comes up together with others, perhaps. */
  monitorGraceMs: 30_000,
  /** One look of the monitor at the agent. */
  agentCheckTimeoutMs: 5_000,
  /** Events that a slow watcher may be behind; it is told of the oldest ones no more. */
  eventsWaitingMax: 1_024,
  /** Between two tries to learn how a process ended, when the link to the agent is broken. */
  exitRetryMs: 500,
} as const;

/** Networks of sandboxes. */
export const networkLimits = {
  /** Open files of the program behind a network that are looked at for connections. */
  uplinkSocketsMax: 4_096,
  /** Published ports of one sandbox, each number of a range counted: each is a socket or a rule on the host. */
  portsMax: 256,
  /** Entries of `allow` and `deny` each, and addresses that one host name may stand for. */
  rulesMax: 128,
  addressesPerNameMax: 16,
  /** Looking up one host name of a rule. */
  lookUpTimeoutMs: 5_000,
  /** Addresses that a host name of a rule has had while the sandbox ran: when there are more, the oldest are forgotten. */
  addressesRememberedMax: 64,
  /** How often host names of rules are looked up anew, and denials counted. */
  renewIntervalMs: 30_000,
  /** What a question for a name may have behind it: an extension without or with few options. */
  questionExtensionBytes: 40,
  /** Other sandboxes that one may reach by name. */
  linksMax: 32,
  /** Connections of one sandbox at once: what its namespace keeps of each is host memory, about 300 bytes. */
  connectionsMax: 8_192,
  /** The program behind a user-mode network must be ready by then. */
  uplinkStartTimeoutMs: 10_000,
  uplinkEndTimeoutMs: 2_000,
  uplinkAnswerMaxLength: 64 * KIB,
  /** How often a look is taken at either. */
  uplinkPollMs: 5,
  /** Free ports that were taken by others before they could be used. */
  portTries: 5,
  /** The guest's driver must have made its interface by then. */
  interfaceTimeoutMs: 10_000,
  interfacePollMs: 5,
  /** Of a guest: what it may be told at once. */
  interfacesMax: 8,
  routesMax: 64,
  addressesMax: 16,
  /** Of one interface of a guest that stands still: those that it was told of, the kernel's own, and some of its own making. */
  presentAddressesMax: 32,
  nameServersMax: 8,
  /** Bytes per second of a network that is slowed down: less than a packet of Ethernet each second is a fault, not a speed. */
  rateMinBytes: 8 * KIB,
  rateMaxBytes: 100 * GIB,
  /** May come at once; a packet that the guest hands over in one piece must fit. */
  rateBurstMinBytes: 128 * KIB,
  /** What waits longer for its turn is dropped. */
  rateLatencyMs: 200,
  /** From a change in a given namespace until it is looked at: changes come in bursts. */
  watchSettleMs: 150,
  /** Before whoever watches it is started anew. */
  watchRestartMs: 1_000,
} as const;

/** Volumes and mounts. */
export const mountLimits = {
  /** Size of a named volume, or of a directory's own disk, unless told; sparse. */
  volumeDefaultBytes: 10 * GIB,
  /** ext4 with a journal needs about this. */
  volumeMinBytes: 8 * MIB,
  volumeMaxBytes: 16 * 1024 * GIB,
  /** Named volumes of one root: each is a directory that is read when they are listed. */
  volumesMax: 4_096,
  labelsMax: 64,
  /** Mounts of one container. */
  mountsMax: 64,
  /** Of these live ones: each takes a port of the VM, and a process on the host. */
  liveMax: 8,
  /** Options of one mount. */
  optionsMax: 32,
  /** A bind that is copied in: it lies in the guest's memory, and crosses the link in one frame. */
  copyMaxBytes: 2 * MIB,
  copyEntriesMax: 512,
  copyDepthMax: 16,
  /** From a change on the host until it is copied: changes come in bursts. */
  copySettleMs: 50,
  /** How often a copied source is looked at besides: a watch can miss what happens behind a link. */
  copyPollMs: 2_000,
  /** A disk that is still busy in the guest, though the container's processes have ended. */
  unmountTimeoutMs: 5_000,
  /** Superblocks are looked for in the beginning of a disk. */
  superblockBytes: 68 * KIB,
  /** The mount-info file of a direct-assigned volume. */
  mountInfoMaxBytes: 64 * KIB,
} as const;

/** What is told of all sandboxes of a root. */
export const eventLimits = {
  /** Events that can be replayed; one of the two files holds as many. */
  keptMax: 4_096,
  /** One file of them: an event has a few hundred bytes, the longest about 2 KB. */
  fileMaxBytes: 16 * MIB,
} as const;

/** For what is done when all containers of a sandbox are to stand still, and when they go on: together below `linkLimits.callTimeoutMs`. */
export const standstillLimits = {
  /** Starts of processes that are under way. */
  launchesTimeoutMs: 7_000,
  /** Hooks of all containers together; those that still run are killed. */
  hooksTimeoutMs: 10_000,
  /** Of these at once: each starts several processes. */
  hooksAtOnce: 4,
  /** Finding out whether a container has one: it may have put a file system there that never answers. */
  hookLookTimeoutMs: 1_000,
  /** What is told of one that failed. */
  hookMessageMaxLength: 512,
  hookFailuresMax: 128,
  /** A process is frozen when it next leaves the kernel; one that waits for a disk takes as long as the disk does. */
  freezeTimeoutMs: 10_000,
  /** Processes that were killed must be gone by then. */
  endTimeoutMs: 5_000,
  /** Of one process that is ended with all that came from it. */
  descendantsMax: 4_096,
  /** What a guest may plan for the return of a copy: files, the length of their paths in bytes, and of their texts. */
  wakeFilesMax: 512,
  wakePathMaxLength: 111,
  wakeTextMaxLength: 4_096,
  /** Until the guest's wake program has brought a copy back; then its agent is asked to. */
  wakeTimeoutMs: 10_000,
} as const;

/** Traces, where they are wanted. */
export const traceLimits = {
  /** Steps of one operation that become spans; a boot has about a hundred. */
  stepsMax: 2_048,
  /** Spans that wait to be sent; of more the oldest are lost. */
  waitingMax: 8_192,
  flushIntervalMs: 1_000,
  sendTimeoutMs: 5_000,
} as const;

export const poolLimits = {
  /** What waits for sandboxes of one kind, at most; and for how many kinds: the last ones that were started. */
  sizeMax: 32,
  kindsMax: 2,
  /** Ids that were given to sandboxes which have not been started yet. */
  reservationsMax: 1_000,
  /** After the start of a sandbox, before another VM is made to wait: the CPUs are the sandbox's. */
  quietMs: 2_000,
  /** What the host must have left beside a VM that waits; with less, none does. */
  reserveMib: 1_024,
  watchIntervalMs: 5_000,
} as const;

export const checkpointLimits = {
  /** Sandboxes that one fork makes: each is a VM of its own. */
  forksMax: 256,
  /** For the boot of a guest that a template is made of: once, on hosts that are slow or busy; and how long it is left alone then. */
  templateBootTimeoutMs: 240_000,
  templateRestMs: 500,
  /** What the container that such a guest rehearses with may write. */
  rehearsalTmpfsBytes: 1024 * 1024,
  /** Files of one archive of a checkpoint, its bytes once unpacked, and how long it may take to read or write it. */
  archiveEntriesMax: 100_000,
  archiveMaxBytes: 1024 * GIB,
  archiveTimeoutMs: 6 * 60 * 60_000,
  /** While an owner that begins removes what killed makers of archives have left. */
  archiveLockTimeoutMs: 60_000,
  /** So many files of a disk that lie over one another become one. */
  overlaysJoined: 32,
  /** Restores that wait for their containers to be given, and how long all of them may take to come. */
  restoreSessionsMax: 64,
  restoreSessionTimeoutMs: 180_000,
  /** Copies of one snapshot that are started at the same time; and how long they have the CPUs, when all are, before their agents do. */
  copiesAtOnce: 8,
  introductionQuietMs: 1_000,
  /** The guest's processes stand still within this, or go on: `standstillLimits` together. */
  freezeTimeoutMs: 30_000,
  /** Of one block of a guest's memory, in a list of pages; what a thread keeps, and takes at most, for pages that are in no file yet. */
  memoryMaxBytes: 1024 * GIB,
  stageKeptBytes: 16 * MIB,
  stageMaxBytes: 512 * MIB,
  /** Room beyond what was counted before the stop: what a guest writes until then. */
  stageSlackBytes: 4 * MIB,
  /** After this nobody comes for memory that was made ready, or copied: longer than a freeze takes. */
  stageIdleMs: 60_000,
  /** For one thread to count its pages, where the other must know how many they are: longer than any guest takes. */
  stageCountTimeoutMs: 60_000,
  /** Another process that makes the same template: a boot, and what is written to disk. */
  templateLockTimeoutMs: 180_000,
} as const;

/** What an image may contain before it is taken for an attack. */
export const imageLimits = {
  /** Entries of one layer. */
  entriesMax: 1_000_000,
  /** Size of one layer once unpacked, holes included. */
  layerMaxBytes: 32 * GIB,
  /** Unpacked bytes per packed byte, once past the free allowance below: a bomb has thousands. */
  expansionRatioMax: 1_000,
  expansionFreeBytes: 256 * MIB,
  layersMax: 128,
  /** Files of an archive that holds an image: some per layer. */
  archiveEntriesMax: 10_000,
  /** How deep an index may lie in an index. */
  indexDepthMax: 4,
  /** Reading and writing the list of images; held for milliseconds. */
  indexLockTimeoutMs: 10_000,
  /** manifest, index and config documents. */
  documentMaxBytes: 4 * MIB,
  pathMaxBytes: 4_096,
  /** Names, and attributes of directories, of one layer: they are held in memory while it is read. */
  namesMaxBytes: 256 * MIB,
  /** One import or pull, whole. */
  timeoutMs: 60 * 60_000,
} as const;

/** Programs that Belljar calls. */
export const toolLimits = {
  timeoutMs: 60_000,
  /** Standard output that is kept; more is an error. */
  outputMaxBytes: 16 * MIB,
  /** Standard error that is kept: the end of it. */
  errorTailBytes: 8 * KIB,
  /** Between SIGTERM and SIGKILL. */
  killGraceMs: 2_000,
} as const;

/** The daemon and its API. */
export const apiLimits = {
  /** The memory of a VM is counted again for a scrape after so long, and of so many VMs for one scrape. */
  memoryRenewMs: 30_000,
  memoryReadsMax: 16,
  /** One message, each way: a list of all sandboxes with their containers and annotations, or a piece of a stream. */
  messageMaxBytes: 16 * MIB,
  /** Clients at once, each with one connection. */
  connectionsMax: 512,
  /** Calls that one connection has under way, streams and long waits included. */
  streamsPerConnectionMax: 256,
  /** Calls of all clients. */
  callsMax: 4_096,
  /** What a client takes of a stream that nobody has read yet, and of all: more than all can hold, so that each holds up itself only. */
  streamWindowBytes: 256 * KIB,
  connectionWindowBytes: 64 * MIB,
  /** From a connection's beginning until its first bytes say which HTTP it speaks. */
  firstByteTimeoutMs: 10_000,
  /** One try to connect; the socket is on the same host. */
  connectTimeoutMs: 5_000,
  /** How long a client looks for a daemon that died or is being started: recovery of a root included. */
  reconnectTimeoutMs: 60_000,
  /** How long a call that does no harm the second time is made again because each daemon dies before it answers. */
  repeatTimeoutMs: 120_000,
  /** Between two tries. */
  reconnectIntervalMs: 50,
  /** Between two tries to start a daemon while another process, perhaps one that is ending, owns the root. */
  restartIntervalMs: 500,
  /** A call that answers at once. Starting, stopping and deleting take as long as they take, within the runtime's own limits. */
  callTimeoutMs: 30_000,
  /** Calls under way have so long to end after the daemon was told to stop. */
  drainTimeoutMs: 5_000,
  /** From `daemon stop` until its process is gone. */
  stopTimeoutMs: 30_000,
  /** A daemon started on demand ends after so long without a client and without a VM. */
  idleExitMs: 60_000,
  /** How often it looks. */
  idleCheckMs: 5_000,
  /** Its log is put aside when it is larger, at a start and while it runs; one older log is kept. */
  logMaxBytes: 4 * MIB,
  /** Lines of it that wait while it is put aside. */
  logHeldBytes: 1 * MIB,
  /** How much of its log an error shows. */
  logTailBytes: 1 * KIB,
  /** Causes of an error that cross the API. */
  errorDepthMax: 8,
} as const;

/** Data from outside, where its decoder does not say a smaller bound itself. */
export const decodeLimits = {
  stringMaxLength: 64 * KIB,
  /** Items of one list or map: above the device and process counts of any sandbox, far below what hurts. */
  itemsMax: 16_384,
  /** Nesting; the deepest document that Belljar reads (an OCI configuration) has about ten levels. */
  depthMax: 32,
  /** How much of a value, and of a path, an error shows. */
  shownValueMaxLength: 40,
  shownPathMaxLength: 200,
} as const;

/** What is kept on disk. */
export const storeLimits = {
  /** One state file; a sandbox with a hundred containers and all their settings has about 1 MB. */
  stateFileMaxBytes: 8 * MIB,
  /** Header line of a state file; today's has under 200 bytes. */
  headerMaxBytes: 1 * KIB,
  /** Writes of one state file that may wait for each other: as many as there are containers that change at once. */
  writesWaitingMax: 1_024,
} as const;

/** Sandboxes without activity, and those that have no VM for it. */
export const hibernationLimits = {
  idleTimeoutMinMs: 1_000,
  idleTimeoutMaxMs: 30 * 24 * 3_600_000,
  /** How often it is looked whether there is activity, at most and at least. */
  idleLookMinMs: 250,
  idleLookMaxMs: 15_000,
  /** Calls under way are waited for so long before a sandbox is put to sleep by hand. */
  callsEndTimeoutMs: 10_000,
  /** Connections that wait for one sandbox to wake. */
  waitingConnectionsMax: 256,
  /** A client that connects to a published port waits so long for the sandbox behind it. */
  connectTimeoutMs: 120_000,
  connectRetryMs: 20,
  trailEveryMinMs: 1_000,
  trailKeepDefault: 10,
  trailKeepMax: 1_000,
  /** A sandbox that has failed is started again after so long, twice as long each time in a row, and at most. */
  restartDelayMs: 1_000,
  restartDelayMaxMs: 60_000,
  /** One that has run for so long has not failed in a row. */
  restartForgivenMs: 60_000,
  restartsMax: 1_000_000,
} as const;
