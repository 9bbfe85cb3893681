/** Containers in a sandbox: their OCI specification (a pure function), their state, and every move of their life. */
export type { ContainerConfig, ContainerLimits, ProcessConfig, TerminalSize } from "./config.ts";
export { Container, type ContainerHost } from "./container.ts";
export { changeContainer, stateOf, stoppedState } from "./container-state.ts";
export { type ContainerDeps, type CreateContainerOptions, createContainer, type MakeDisk } from "./create.ts";
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
export { OutputCursor } from "./output-cursor.ts";
export { readOutputHistory } from "./output-history.ts";
export { Outputs } from "./outputs.ts";
export { commandLine } from "./spec.ts";
export { type ContainerState, containerSandboxSchema, type ExecRecord, type HostSandbox } from "./state.ts";
export type { BlockIoStats, ContainerStats, NetworkStats } from "./stats.ts";
export { type ProcessStatus, toMilliseconds, toStatus } from "./status.ts";
export { checkSignal, SIGKILL, signalNumber } from "./stop-signal.ts";
export { makeDisk } from "./storage.ts";
export { resolveEnvironment } from "./stored-config.ts";
