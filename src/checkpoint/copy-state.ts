/** The state of a new sandbox that goes on where another one was: the same containers, under a name and an identity of its own. */
import { basename, join } from "node:path";
import type { ContainerState } from "../container/index.ts";
import type { DeviceState } from "../devices/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { type CopiedNetworkConfig, copiedNetwork } from "../network/index.ts";
import type { SandboxState } from "../sandbox/index.ts";
import { withDiskPaths } from "./moved-disks.ts";

/** Its `ports` are published in place of the source's, which get free ports of the host. */
export interface CopyIdentity extends CopiedNetworkConfig {
  readonly id: string;
  readonly name: string;
  readonly hostname: string;
  readonly createdAtMs: number;
  readonly runDir: string;
  readonly keepExec: boolean;
  readonly ends?:
    | { readonly stopWithMain?: boolean | undefined; readonly autoRemove?: boolean | undefined }
    | undefined;
}

export interface CopiedState {
  /** As it is written down first: nothing of it runs yet, and what is half made is removed. */
  readonly first: SandboxState<ContainerState>;
  /** Its state once it runs. A sandbox that was saved while it was paused runs on as well. */
  readonly running: (now: SandboxState<ContainerState>) => SandboxState<ContainerState>;
}

/** @param paths where the disks of its own are now, by serial number */
export function copyState(
  source: SandboxState<ContainerState>,
  identity: CopyIdentity,
  paths: ReadonlyMap<string, string>,
): CopiedState {
  const { id, name, hostname, createdAtMs, runDir, keepExec, ends, ports, network } = identity;
  const moved = withDiskPaths(source, paths);
  const first: SandboxState<ContainerState> = {
    ...moved,
    id,
    name,
    createdAtMs,
    runDir,
    settings: {
      ...moved.settings,
      hostname,
      network: copiedNetwork(moved.settings.network, { ports, network }),
      stopWithMain: ends?.stopWithMain ?? moved.settings.stopWithMain,
      autoRemove: ends?.autoRemove ?? moved.settings.autoRemove,
    },
    state: "ready",
    pending: { operation: "create", sinceMs: createdAtMs },
    cgroups: undefined,
    network: undefined,
    vm: undefined,
    agentInstance: undefined,
    end: undefined,
    workloadFrozen: undefined,
    wake: undefined,
    returning: undefined,
    generation: moved.generation + 1,
    // The one that it was made of was not counted yet.
    checkpoints: (moved.checkpoints ?? 0) + 1,
    devices: moved.devices?.map((device) => withDevicePath(device, paths)),
    containers: moved.containers.map((container) => ({
      ...container,
      pending: undefined,
      state: container.state === "paused" && !container.frozen ? "running" : container.state,
      processes: keepExec ? container.processes : [],
    })),
  };
  return { first, running: (now) => ({ ...now, state: "running", pending: undefined }) };
}

/** Where a new sandbox has the files of a disk, before there is anything over them. */
export function diskPlace(disksDir: string, files: readonly string[]): string {
  return join(disksDir, basename(files[0] ?? ""));
}

function withDevicePath(device: DeviceState, paths: ReadonlyMap<string, string>): DeviceState {
  const path = paths.get(device.id);
  if (path === undefined || !device.isContainers || device.config.kind !== "block") return device;
  const { disk } = device;
  return {
    ...device,
    key: `file:${path}`,
    config: { ...device.config, path, format: "qcow2" },
    disk: disk === undefined ? undefined : { ...withoutJoined(disk), path, format: "qcow2", overlays: 0 },
  };
}

/** A VM that is started has nothing of what was done to the disks of another one. */
function withoutJoined({ joined: _, ...disk }: DiskConfig): DiskConfig {
  return disk;
}
