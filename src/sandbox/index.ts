/** One VM with its agent: configuration, life, what it leaves on disk, and the removal of what dead owners left. */
export { type SandboxConfig, type SandboxSettings, settleSandboxConfig } from "./config.ts";
export { type PruneDeps, pruneSandboxes, type Removed } from "./prune.ts";
export { Sandbox, type SandboxDeps, type SandboxInfo } from "./sandbox.ts";
export type { SandboxState } from "./state.ts";
