/** Frozen guests: templates that new sandboxes start from, checkpoints of whole sandboxes, and copies of either. */
export { exportCheckpoint, importCheckpoint } from "./archive.ts";
export { type CaptureDeps, type Captured, type CaptureOptions, capture } from "./capture.ts";
export { checkpointDigest } from "./checkpoint-digest.ts";
export type { CheckpointState } from "./checkpoint-state.ts";
export { CheckpointDraft, CheckpointStore, type FoundCheckpoint, isError } from "./checkpoint-store.ts";
export { type CopyIdentity, copyState } from "./copy-state.ts";
export { joinOverlays } from "./join-overlays.ts";
export { laySnapshot } from "./laid-snapshot.ts";
export { findLayers } from "./layers.ts";
export { countPages, createGuestMemory, type GuestMemory, PAGE_BYTES } from "./memory/index.ts";
export { withDiskPaths } from "./moved-disks.ts";
export { Pool, type PoolDeps } from "./pool.ts";
export { renameContainers } from "./renamed-containers.ts";
export type { Snapshot } from "./snapshot.ts";
export { copyLogs, makeDisks, planDisks, replaceDisks, startCopy } from "./start-copy.ts";
export type { TemplateState } from "./template-state.ts";
export { type TemplateInfo, Templates, type TemplatesDeps } from "./templates.ts";
export { warmSnapshot } from "./warm-image.ts";
