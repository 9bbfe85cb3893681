/** What is done to a sandbox by those who copy it, and what they need for that. */
import type { GuestMemory } from "../checkpoint/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import type {
  CallOptions,
  CheckpointInfo,
  CheckpointOptions,
  ForkOptions,
  RewindOptions,
  SandboxHandle,
} from "./interface.ts";
import type { Introductions } from "./introductions.ts";
import type { ManagedSandbox, ManagedSandboxDeps } from "./managed-sandbox.ts";

export interface CheckpointMoves {
  create(managed: ManagedSandbox, options: CheckpointOptions): Promise<CheckpointInfo>;
  /** The next one. */
  wait(managed: ManagedSandbox, options: CallOptions): Promise<CheckpointInfo>;
  rewind(managed: ManagedSandbox, options: RewindOptions): Promise<CheckpointInfo>;
  fork(managed: ManagedSandbox, options: ForkOptions | number): Promise<readonly SandboxHandle[]>;
}

export interface CheckpointsDeps {
  readonly runtime: RuntimeDeps;
  readonly memory: GuestMemory;
  readonly introductions: Introductions;
  /** Does the work under a name that nobody else takes meanwhile. */
  readonly make: <T>(
    name: string,
    work: (signal: AbortSignal) => Promise<T>,
    signal: AbortSignal | undefined,
  ) => Promise<T>;
  readonly managed: () => ManagedSandboxDeps;
  readonly onMade: (managed: ManagedSandbox) => void;
  /** @throws BelljarError `SANDBOX_NOT_FOUND` */
  readonly find: (id: string) => ManagedSandbox;
  readonly isNameFree: (name: string) => boolean;
}
