/** Containers in a sandbox: their OCI specification (a pure function), their life, their processes and streams. */
export type { ContainerConfig, ContainerLimits, ProcessConfig } from "./config.ts";
export { Container, type ContainerDeps } from "./container.ts";
export { Process, type ProcessStartOptions, type ProcessStatus, type TerminalSize } from "./process.ts";
export { buildProcess, buildSpec, type ImageRunConfig, type SpecOptions } from "./spec.ts";
