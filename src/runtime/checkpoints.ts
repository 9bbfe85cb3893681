/** The checkpoints of one root. */
import { BelljarError } from "../base/index.ts";
import type { CheckpointInfo, Checkpoints, RestoreReport, SandboxHandle } from "./interface.ts";

export class RuntimeCheckpoints implements Checkpoints {
  async list(): Promise<readonly CheckpointInfo[]> {
    return [];
  }

  async get(nameOrId: string): Promise<CheckpointInfo> {
    throw notFound(nameOrId);
  }

  async restore(nameOrId: string): Promise<SandboxHandle> {
    throw notFound(nameOrId);
  }

  async check(nameOrId: string): Promise<RestoreReport> {
    throw notFound(nameOrId);
  }

  async verify(nameOrId: string): Promise<CheckpointInfo> {
    throw notFound(nameOrId);
  }

  async remove(nameOrId: string): Promise<CheckpointInfo> {
    throw notFound(nameOrId);
  }
}

function notFound(nameOrId: string): BelljarError {
  return new BelljarError("CHECKPOINT_NOT_FOUND", `there is no checkpoint ${JSON.stringify(nameOrId.slice(0, 80))}`);
}
