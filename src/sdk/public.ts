/**
 * The library that programs import: `import { Runtime } from "belljar"`. What stands here, and what it refers to, are the types of the
 * published package: nothing of them names the daemon's side, so that they need no types but Node's own.
 */
export {
  BelljarError,
  type ErrorCode,
  type ErrorFacts,
  type ErrorReason,
  linesOf,
  type OutputLine,
} from "../base/index.ts";
export type { TemplateInfo } from "../checkpoint/index.ts";
export type {
  ContainerConfig,
  ContainerDeviceConfig,
  ContainerLimits,
  DirectoryEntry,
  DirectoryList,
  FileAttributes,
  FileEvent,
  FileInfo,
  Files,
  FileType,
  MountConfig,
  MountInfo,
  ProcessConfig,
  ProcessStatus,
  TerminalSize,
} from "../container/index.ts";
export type { DeviceRequest } from "../devices/index.ts";
export type { GuestImage, GuestImageInfo } from "../guest/index.ts";
export type { GarbageReport, ImageInfo } from "../images/index.ts";
export type {
  EndpointModel,
  NetworkConfig,
  NetworkMode,
  PolicyConfig,
  PortConfig,
  PublishedPort,
  RateConfig,
} from "../network/index.ts";
export type { Capability } from "../resources/index.ts";
export type {
  AttachOptions,
  CheckpointInfo,
  CheckpointOptions,
  Checkpoints,
  ContainerCreateConfig,
  ContainerHandle,
  ContainerInfo,
  ContainerStats,
  DeviceInfo,
  Devices,
  EventsOptions,
  ExecOptions,
  ExecResult,
  ForkOptions,
  HibernationInfo,
  InterfaceInfo,
  LogRecord,
  NetworkInfo,
  NetworkInterfaceInfo,
  ProcessHandle,
  Recovered,
  RestoredContainer,
  RestoreFinding,
  RestoreOptions,
  RestoreReport,
  RestoreSession,
  RewindOptions,
  RouteInfo,
  RuntimeEvent,
  SandboxCreateConfig,
  SandboxCreateOptions,
  SandboxEvent,
  Sandboxes,
  SandboxHandle,
  SandboxInfo,
  SandboxNetwork,
  SandboxResources,
  SandboxResourcesInfo,
  SandboxStats,
  SpecValidation,
  StopOptions,
  VolumeCreateConfig,
  VolumeInfo,
  Volumes,
  VolumeUser,
} from "../runtime/index.ts";
export type { RestartConfig, RestartState, TrailConfig, TrailSettings } from "../sandbox/index.ts";
export type { DaemonStatus } from "./daemon-status.ts";
export type { ArchiveOptions, CheckpointArchives, ExportOptions, HostParts, HostTemplates } from "./host-parts.ts";
export { type PathOptions, type Paths, resolvePaths, resolvePoolSize, resolveSpareCount } from "./paths.ts";
export { type ConnectedRuntime, type ConnectOptions, type OpenOptions, Runtime } from "./runtime.ts";
