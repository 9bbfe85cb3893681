/** What `sandbox.json` holds of a container: enough to run it again in another VM, and to take it over in the one it is in. */
import {
  type EndCause,
  type Field,
  isId,
  type LifecycleState,
  lifecycleStates,
  mountLimits,
  streamLimits,
} from "../base/index.ts";
import { decodeDiskConfig } from "../hypervisor/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import {
  decodeEndCause,
  decodePending,
  type Pending,
  type Sandbox,
  type SandboxedContainer,
  type SandboxState,
  sandboxStateSchema,
} from "../sandbox/index.ts";
import type { StateSchema } from "../store/index.ts";
import type { ContainerLimits } from "./config.ts";
import { decodeRoot, type RootState } from "./handed-root.ts";
import { decodeMountState, type MountState } from "./mount-config.ts";
import type { ImageRunConfig } from "./spec.ts";
import { decodeProcessStatus, type ProcessStatus } from "./status.ts";
import { decodeLimits, decodeStoredConfig, type StoredConfig } from "./stored-config.ts";
import { decodeStorage, type StorageState } from "./writable.ts";

export const containerIntents = ["create", "start", "stop", "delete", "pause", "resume", "update"] as const;
export type ContainerIntent = (typeof containerIntents)[number];

/** A process that was started by `exec` and not released yet. How it ended, the agent knows. */
export interface ExecRecord {
  readonly id: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly tty: boolean;
  readonly stdin: boolean;
}

export interface ContainerState extends SandboxedContainer {
  readonly name: string;
  readonly image: string;
  readonly imageConfig: ImageRunConfig & { readonly user: string; readonly stopSignal: string };
  readonly config: StoredConfig;
  /** As they are now, updates included. */
  readonly limits: ContainerLimits;
  /** The layers bottom first, then the writable disk, then swap, then those of the mounts. */
  readonly disks: readonly DiskConfig[];
  /** In the order in which they are made. */
  readonly mounts?: readonly MountState[] | undefined;
  /** Absent in a container that an older version made, and where the root is a disk that was handed in. */
  readonly storage?: StorageState | undefined;
  /** Of one whose root file system was handed in. */
  readonly root?: RootState | undefined;
  readonly swappiness?: number | undefined;
  readonly createdAtMs: number;
  readonly state: LifecycleState;
  readonly pending?: Pending<ContainerIntent> | undefined;
  readonly inGuest: boolean;
  /** Its processes are frozen in the guest. A container that is paused and not frozen is in a paused sandbox. */
  readonly frozen: boolean;
  /** How often it was started: each start has an output of its own. */
  readonly starts: number;
  readonly startedAtMs?: number | undefined;
  readonly pid?: number | undefined;
  readonly status?: ProcessStatus | undefined;
  readonly end?: EndCause | undefined;
  readonly processes: readonly ExecRecord[];
}

/** Of a restored container, whose id somebody else may have chosen. */
export const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/;

export type HostSandbox = Sandbox<ContainerState>;

export const containerSandboxSchema: StateSchema<SandboxState<ContainerState>> =
  sandboxStateSchema(decodeContainerState);

export function decodeContainerState(field: Field): ContainerState {
  const id = field.field("id").string({ maxLength: 64, pattern: CONTAINER_ID });
  const guestId = field.field("guestId").optional((value) => value.string({ maxLength: 64 }));
  // The guest has only ever heard of ids of ours.
  if (!isId(guestId ?? id)) throw field.field("id").expected("an id");
  const time = (name: string): number | undefined => field.field(name).optional((value) => value.integer({ min: 0 }));
  return {
    id,
    guestId,
    name: field.field("name").string({ minLength: 1, maxLength: 63 }),
    image: field.field("image").string({ maxLength: 4_096 }),
    imageConfig: decodeImageConfig(field.field("imageConfig")),
    config: decodeStoredConfig(field.field("config")),
    limits: decodeLimits(field.field("limits")),
    disks: field.field("disks").array(decodeDiskConfig, { maxItems: 256 }),
    mounts: field.field("mounts").optional((list) => list.array(decodeMountState, { maxItems: mountLimits.mountsMax })),
    storage: field.field("storage").optional(decodeStorage),
    root: field.field("root").optional(decodeRoot),
    swappiness: field.field("swappiness").optional((value) => value.integer({ min: 0, max: 200 })),
    createdAtMs: field.field("createdAtMs").integer({ min: 0 }),
    state: field.field("state").oneOf(lifecycleStates),
    pending: field.field("pending").optional((pending) => decodePending(pending, containerIntents)),
    inGuest: field.field("inGuest").boolean(),
    frozen: field.field("frozen").boolean(),
    starts: field.field("starts").integer({ min: 0 }),
    startedAtMs: time("startedAtMs"),
    pid: field.field("pid").optional((value) => value.integer({ min: 1 })),
    status: field.field("status").optional(decodeProcessStatus),
    end: field.field("end").optional(decodeEndCause),
    processes: field.field("processes").array(decodeExecRecord, { maxItems: streamLimits.processesMax }),
  };
}

function decodeImageConfig(field: Field): ContainerState["imageConfig"] {
  const words = (name: string): string[] | undefined =>
    field.field(name).optional((list) => list.array((word) => word.string()));
  return {
    entrypoint: words("entrypoint"),
    cmd: words("cmd"),
    env: words("env"),
    workingDir: field.field("workingDir").optional((path) => path.string()),
    user: field.field("user").string(),
    stopSignal: field.field("stopSignal").string(),
  };
}

function decodeExecRecord(field: Field): ExecRecord {
  return {
    id: field.field("id").string({ minLength: 1, maxLength: 64 }),
    pid: field.field("pid").integer({ min: 1 }),
    startedAtMs: field.field("startedAtMs").integer({ min: 0 }),
    tty: field.field("tty").boolean(),
    stdin: field.field("stdin").boolean(),
  };
}
