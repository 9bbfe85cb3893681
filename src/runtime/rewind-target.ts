/** Which checkpoint a sandbox goes back to: one of its own, by name or by age. */
import { BelljarError } from "../base/index.ts";
import { type CheckpointState, type FoundCheckpoint, isError } from "../checkpoint/index.ts";

/** Its own that can be read, oldest first. */
export function checkpointsOf(all: readonly FoundCheckpoint[], sandboxId: string): CheckpointState[] {
  return all.flatMap(({ state }) => (isError(state) || state.source.id !== sandboxId ? [] : [state]));
}

/** @throws BelljarError `CHECKPOINT_NOT_FOUND` */
export function latestBefore(own: readonly CheckpointState[], sandboxId: string, beforeMs: number): CheckpointState {
  const found = own.findLast(({ createdAtMs }) => createdAtMs <= beforeMs);
  if (found !== undefined) return found;
  const oldest =
    own[0] === undefined ? "it has none" : `its oldest is of ${new Date(own[0].createdAtMs).toISOString()}`;
  throw new BelljarError(
    "CHECKPOINT_NOT_FOUND",
    `sandbox ${sandboxId} has no checkpoint that is old enough; ${oldest}`,
  );
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkOwn({ name, source }: CheckpointState, sandboxId: string): void {
  if (source.id === sandboxId) return;
  throw new BelljarError("INVALID_ARGUMENT", `the checkpoint ${name} is of sandbox ${source.name}, not of this one`, {
    facts: { source: source.id },
    remedy: "Restore it as a new sandbox.",
  });
}
