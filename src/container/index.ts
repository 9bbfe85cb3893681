/** Containers in a sandbox: their OCI specification (a pure function), their state, and every move of their life. */
export type { ContainerConfig, ContainerLimits, ProcessConfig, TerminalSize } from "./config.ts";
export { Container } from "./container.ts";
export { changeContainer, stateOf, stoppedState } from "./container-state.ts";
export { Copies } from "./copies.ts";
export {
  type ContainerDeps,
  type CreateContainerOptions,
  createContainer,
  type MakeDisk,
  planContainerMounts,
} from "./create.ts";
export type { ContainerDeviceConfig } from "./device-config.ts";
export { forgetDirectVolumes } from "./direct-volumes.ts";
export { sendSignal } from "./end.ts";
export { noteExit } from "./exit-watch.ts";
export { ContainerFiles } from "./files.ts";
export { guestFileCalls } from "./files-guest.ts";
export type {
  DirectoryEntry,
  DirectoryList,
  DirectoryPage,
  FileAttributes,
  FileCallOptions,
  FileCalls,
  FileEvent,
  FileInfo,
  FilePiece,
  Files,
  FileType,
  NumberedFileEvent,
} from "./files-types.ts";
export { chainOf, layOverlay, linkInto, overlayPath, removeOwnDisk, writtenDisks } from "./frozen-disks.ts";
export { finishGrowth } from "./growth.ts";
export { type HandedRoot, type RootfsConfig, takeRootfs } from "./handed-root.ts";
export type { ContainerHost } from "./host.ts";
export { type PreparedJoin, placeJoin, prepareJoin, removeUnused } from "./joined-disks.ts";
export { limitsOf } from "./limits.ts";
export {
  type BindWay,
  bindWays,
  type MountConfig,
  type MountInfo,
  type MountState,
  type MountType,
  type MountWay,
  mountInfo,
  mountTypes,
  mountWays,
} from "./mount-config.ts";
export { sharedDisks } from "./mount-place.ts";
export type { MountDisk, MountHost, MountPlan } from "./mount-plan.ts";
export { OutputCursor } from "./output-cursor.ts";
export { readOutputHistory } from "./output-history.ts";
export { type LogSnapshot, Outputs } from "./outputs.ts";
export { reservePciDevices } from "./pci-devices.ts";
export { sharedDevices, unplugUnusedShared } from "./shared-directories.ts";
export { growFor, shrinkToNeed, sizeFor, wantedSize } from "./sizing.ts";
export { buildProcess, buildSpec, commandLine } from "./spec.ts";
export { compareSpec, type SpecDifference } from "./spec-differences.ts";
export {
  CONTAINER_ID,
  type ContainerState,
  containerSandboxSchema,
  type ExecRecord,
  type HostSandbox,
} from "./state.ts";
export type { BlockIoStats, ContainerStats, NetworkStats } from "./stats.ts";
export { type ProcessStatus, toMilliseconds, toStatus } from "./status.ts";
export { checkSignal, SIGKILL, signalNumber } from "./stop-signal.ts";
export { makeDisk } from "./storage.ts";
export { resolveEnvironment } from "./stored-config.ts";
export {
  type StorageKind,
  type StorageOptions,
  type StorageState,
  storageKinds,
  storageOf,
} from "./writable.ts";
export { diskMaker, sweepBlanks } from "./writable-disk.ts";
