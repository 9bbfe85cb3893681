/** What a checkpoint is by its content: two that have the same digest are the same, wherever they are. */
import { createHash } from "node:crypto";
import type { CheckpointState } from "./checkpoint-state.ts";

export function checkpointDigest({ files: written, traits, guestImage, disks, devicesAt }: CheckpointState): string {
  const names = written.map(({ path, sizeBytes, digest }) => [path, sizeBytes, digest]).sort();
  const { hypervisor, machine, acceleration, commandLine } = traits;
  return createHash("sha256")
    .update(JSON.stringify([names, hypervisor, machine, acceleration, commandLine, guestImage, disks, devicesAt]))
    .digest("hex");
}
