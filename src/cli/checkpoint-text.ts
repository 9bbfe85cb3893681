/** Checkpoints as JSON for scripts and as words for people: times are RFC 3339, sizes bytes. */
import type { CheckpointInfo } from "../sdk/index.ts";
import { formatBytes, formatDuration } from "./output.ts";

export function checkpointJson({ createdAtMs, memoryMib, ...info }: CheckpointInfo): object {
  const { id, name, ...rest } = info;
  // One that cannot be read may have no time.
  const createdAt = Number.isNaN(new Date(createdAtMs).getTime()) ? undefined : new Date(createdAtMs).toISOString();
  return { id, name, createdAt, memoryBytes: memoryMib * 2 ** 20, ...rest };
}

/** What it takes on disk. */
export function checkpointBytes({ pagesBytes, devicesBytes, disksBytes }: CheckpointInfo): number {
  return pagesBytes + devicesBytes + disksBytes;
}

/** What its making cost. */
export function costText(info: CheckpointInfo, tookMs: number): string {
  const { name, source, pauseMs, frozenMs, pagesBytes, disksBytes } = info;
  return (
    `checkpoint ${name} of ${source.name}: VM stopped for ${formatDuration(pauseMs)}, workload for ` +
    `${formatDuration(frozenMs)}; ${formatBytes(pagesBytes)} of memory, ${formatBytes(disksBytes)} of disks; ` +
    `done in ${formatDuration(tookMs)}`
  );
}
