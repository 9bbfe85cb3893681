/** What stands in the way of a checkpoint, by name: looked at before anything is stopped. */
import { BelljarError } from "../base/index.ts";
import { type ContainerState, sharedDisks } from "../container/index.ts";
import type { SandboxState } from "../sandbox/index.ts";

/** @throws BelljarError `NOT_CHECKPOINTABLE` with all of them */
export function checkCheckpointable(state: SandboxState<ContainerState>): void {
  const blockers = findBlockers(state);
  if (blockers.length === 0) return;
  throw new BelljarError("NOT_CHECKPOINTABLE", `sandbox ${state.id} cannot be checkpointed: ${blockers.join("; ")}`, {
    facts: { blockers },
  });
}

function findBlockers(state: SandboxState<ContainerState>): string[] {
  const { vm, containers, devices = [], settings } = state;
  const found: string[] = [];
  for (const container of containers) {
    for (const { how, destination } of container.mounts ?? []) {
      if (how === "live") found.push(`${destination} of container ${container.name} is a live mount (virtiofs)`);
    }
    for (const { what, readOnly } of sharedDisks(container)) {
      if (!readOnly) found.push(`container ${container.name} writes to the ${what}, which others may use`);
    }
  }
  for (const { id, kind } of vm?.devices ?? []) {
    const isMount = containers.some(({ mounts = [] }) => mounts.some(({ how }) => how === "live"));
    // A copy gets a network of its own.
    if (kind === "net") continue;
    if (kind === "vfio") found.push(`the device ${id} is the host's own (VFIO)`);
    else if (kind !== "vhost-user-fs" || !isMount) found.push(`the device ${id} is another program's (${kind})`);
  }
  for (const { id, disk, isContainers, phase } of devices) {
    if (phase !== "attached" && phase !== "detached") found.push(`the device ${id} is being plugged or unplugged`);
    else if (!isContainers && disk !== undefined && !disk.readOnly && phase === "attached") {
      found.push(`the disk ${id} (${disk.path}) is not the sandbox's own, and written to`);
    }
  }
  if (state.state === "paused" && state.workloadFrozen !== true) {
    found.push("its agent did not answer when it was paused; resume it first");
  }
  if (found.length === 0 && (settings.vhostUser === true || vm?.sharedMemory === true)) {
    found.push("its memory is shared with other programs (--vhost-user)");
  }
  return found;
}
