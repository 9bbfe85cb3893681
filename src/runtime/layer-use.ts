/**
 * Which layers of images the sandboxes and checkpoints of a root use, read from their states as they are on disk: by whoever removes images, which need
 * not be the root's owner. Stopped sandboxes count as much as those that run.
 */
import { basename, join } from "node:path";
import { BelljarError, hasErrno, isId } from "../base/index.ts";
import { CheckpointStore, isError } from "../checkpoint/index.ts";
import { type ContainerState, containerSandboxSchema } from "../container/index.ts";
import type { LayerUse } from "../images/index.ts";
import { isUnfinished, type SandboxState } from "../sandbox/index.ts";
import { type Disk, StateFile, systemDisk } from "../store/index.ts";
import { isRemoved } from "./leftovers.ts";

const LAYER_FILE = /^[0-9a-f]{64}\.erofs$/;

export async function readLayerUse(rootDir: string, disk: Disk = systemDisk): Promise<LayerUse> {
  const sandboxesDir = join(rootDir, "sandboxes");
  const containers: { sandbox: string; layerFiles: readonly string[] }[] = [];
  const unreadable: string[] = [];
  for (const name of await list(sandboxesDir, disk)) {
    // One that is being made has no containers yet; from its first one on it stands under its id.
    if (isUnfinished(name)) continue;
    const state = await read(join(sandboxesDir, name), isId(name), disk);
    if (state === "unreadable") unreadable.push(name);
    else if (state !== undefined) containers.push(...usesOf(state));
  }
  for (const { id, state } of await new CheckpointStore(join(rootDir, "checkpoints"), disk).list()) {
    if (isError(state)) unreadable.push(`checkpoint ${id}`);
    else containers.push({ sandbox: `checkpoint ${state.name}`, layerFiles: layersOf(state.needs) });
  }
  return { containers, unreadable };
}

function usesOf({ name, containers }: SandboxState<ContainerState>): LayerUse["containers"] {
  return containers.map(({ disks }) => ({
    sandbox: name,
    layerFiles: layersOf(disks.map(({ path }) => path)),
  }));
}

function layersOf(paths: readonly string[]): readonly string[] {
  return paths.map((path) => basename(path)).filter((file) => LAYER_FILE.test(file));
}

async function read(
  dir: string,
  isSandbox: boolean,
  disk: Disk,
): Promise<SandboxState<ContainerState> | "unreadable" | undefined> {
  try {
    return await new StateFile(join(dir, "sandbox.json"), containerSandboxSchema, disk).read();
  } catch (error) {
    const isMissing = error instanceof BelljarError && error.reason === "STATE_MISSING";
    return isMissing && (!isSandbox || (await isRemoved(dir))) ? undefined : "unreadable";
  }
}

async function list(dir: string, disk: Disk): Promise<string[]> {
  try {
    return await disk.list(dir);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}
