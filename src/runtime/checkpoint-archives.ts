/** Checkpoints of a root as files, whoever owns the root: they never change, and appear by a rename. */
import { join } from "node:path";
import {
  CheckpointStore,
  type ExportCheckpointOptions,
  exportCheckpoint,
  importCheckpoint,
  isError,
} from "../checkpoint/index.ts";
import { systemDisk } from "../store/index.ts";
import { checkpointInfo } from "./checkpoint-info.ts";
import type { CheckpointInfo } from "./interface.ts";
import { findNamed } from "./names.ts";

export type { ExportCheckpointOptions };

export interface CheckpointName {
  readonly id: string;
  readonly name: string;
}

export async function exportNamed(
  rootDir: string,
  nameOrId: string,
  path: string,
  options?: ExportCheckpointOptions,
): Promise<CheckpointName> {
  const store = storeOf(rootDir);
  const all = (await store.list()).map(({ id, state }) => ({ id, name: isError(state) ? id : state.name }));
  const { id } = findNamed(all, nameOrId, "checkpoint", "CHECKPOINT_NOT_FOUND", "CHECKPOINT_AMBIGUOUS");
  const { name } = await exportCheckpoint(store, id, path, options);
  return { id, name };
}

export async function importNamed(rootDir: string, path: string, signal?: AbortSignal): Promise<CheckpointName> {
  const { id, name } = await importCheckpoint(storeOf(rootDir), path, signal);
  return { id, name };
}

/** Those that sandboxes can be started from, oldest first; one that cannot be read is no such one. */
export async function listTemplates(rootDir: string): Promise<readonly CheckpointInfo[]> {
  const store = storeOf(rootDir);
  const infos: CheckpointInfo[] = [];
  for (const { id, state } of await store.list()) {
    if (isError(state) || state.isTemplate !== true) continue;
    infos.push(checkpointInfo(state, await store.diskBytes(id), await store.memoryBytes(id)));
  }
  return infos;
}

function storeOf(rootDir: string): CheckpointStore {
  return new CheckpointStore(join(rootDir, "checkpoints"), systemDisk);
}
