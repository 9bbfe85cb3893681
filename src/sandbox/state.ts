/** What a sandbox leaves on disk: enough for another process to find, judge and remove it, whatever its owner was doing. */
import { decodeProcessIdentity, type Field, type ProcessIdentity } from "../base/index.ts";
import { decodeVmState } from "../hypervisor/index.ts";
import type { VmState } from "../hypervisor/interface.ts";
import type { StateSchema } from "../store/index.ts";

export interface SandboxState {
  readonly id: string;
  readonly name: string;
  /** Process that runs this sandbox in-process. When it is gone, the sandbox is nobody's and is removed. */
  readonly owner: ProcessIdentity;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** Name of the image of the first container. */
  readonly image: string;
  /** Directory of its sockets. */
  readonly runDir: string;
  /** Absent until the VM has been started. */
  readonly vm?: VmState;
}

export const sandboxStateSchema: StateSchema<SandboxState> = {
  kind: "sandbox",
  migrations: [],
  decode: decodeSandboxState,
};

function decodeSandboxState(field: Field): SandboxState {
  const vm = field.field("vm").optional(decodeVmState);
  return {
    id: field.field("id").string(),
    name: field.field("name").string(),
    owner: decodeProcessIdentity(field.field("owner")),
    createdAtMs: field.field("createdAtMs").integer({ min: 0 }),
    image: field.field("image").string(),
    runDir: field.field("runDir").string(),
    ...(vm === undefined ? {} : { vm }),
  };
}
