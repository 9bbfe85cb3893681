/** The library that programs import: `import { Runtime } from "belljar"`. */
export { BelljarError, type ErrorCode, type ErrorFacts, type ErrorReason } from "../base/index.ts";
export type { ContainerConfig, Process, ProcessConfig, ProcessStatus } from "../container/index.ts";
export type { GuestImage, GuestImageInfo } from "../guest/index.ts";
export type { ImageInfo } from "../images/index.ts";
export type { Capability } from "../resources/index.ts";
export { type PathOptions, type Paths, resolvePaths } from "./paths.ts";
export { type CreateOptions, Runtime, type RuntimeOptions } from "./runtime.ts";
export { type ExecResult, type SandboxCreateConfig, SandboxHandle } from "./sandbox-handle.ts";
