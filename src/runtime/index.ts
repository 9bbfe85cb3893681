/** All sandboxes of one root: made, found again, recovered, changed and removed, whoever asks. */
export {
  type CheckpointName,
  type ExportCheckpointOptions,
  exportNamed,
  importNamed,
  listTemplates,
} from "./checkpoint-archives.ts";
export type { RuntimeDeps } from "./deps.ts";
export { type Forks, settleForkOptions } from "./fork-options.ts";
export type * from "./interface.ts";
export { readLayerUse } from "./layer-use.ts";
export type { Recovered } from "./leftovers.ts";
export { openRuntime, type RuntimeCore } from "./open.ts";
