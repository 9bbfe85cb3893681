/** Storage plug-ins are told which sandbox has their volumes, and told again when it has them no more. */
import { forgetSandbox, recordSandbox } from "../volumes/index.ts";
import type { ContainerHost } from "./host.ts";
import type { ContainerState } from "./state.ts";

type Host = Pick<ContainerHost, "mounts" | "sandbox">;

export async function recordDirectVolumes({ mounts, sandbox }: Host, container: ContainerState): Promise<void> {
  for (const path of pathsOf(container)) await recordSandbox(mounts.directVolumesDir, path, sandbox.id);
}

/** Of a container that is about to go. Another one of the sandbox may have the same volume. */
export async function forgetDirectVolumes({ mounts, sandbox }: Host, container: ContainerState): Promise<void> {
  const others = sandbox.state.containers.filter(({ id }) => id !== container.id).flatMap(pathsOf);
  for (const path of pathsOf(container)) {
    if (!others.includes(path)) await forgetSandbox(mounts.directVolumesDir, path, sandbox.id);
  }
}

function pathsOf({ mounts = [] }: ContainerState): string[] {
  return mounts.flatMap(({ disk }) => (disk?.directVolume === undefined ? [] : [disk.directVolume]));
}
