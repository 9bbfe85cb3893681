/** The state of a sandbox whose disks are other files than before: every place that names them. */
import type { ContainerState } from "../container/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import type { SandboxState } from "../sandbox/index.ts";

/** By serial number; of disks that are not named nothing changes. A disk that has an overlay is a qcow2 image. */
export function withDiskPaths(
  state: SandboxState<ContainerState>,
  paths: ReadonlyMap<string, string>,
): SandboxState<ContainerState> {
  const moved = <T extends DiskConfig>(disk: T): T => {
    const path = paths.get(disk.serial);
    if (path === undefined || path === disk.path) return disk;
    return { ...disk, path, format: path.endsWith(".qcow2") ? "qcow2" : disk.format };
  };
  const { vm } = state;
  return {
    ...state,
    ...(vm === undefined ? {} : { vm: { ...vm, disks: vm.disks.map(moved) } }),
    containers: state.containers.map((container) => ({ ...container, disks: container.disks.map(moved) })),
  };
}
