/** One VM with its agent: configuration, state on disk, the VM's life, and the order of what is done to it. */
export {
  type Annotations,
  checkAnnotations,
  checkLateAnnotations,
  type SwapSettings,
  swapAnnotations,
} from "./annotations.ts";
export {
  checkCpus,
  checkHostname,
  checkMemoryMib,
  type DnsConfig,
  maxSize,
  type SandboxConfig,
  type SandboxSettings,
  type SettledSandbox,
  settleSandboxConfig,
} from "./config.ts";
export { endProcess } from "./end-process.ts";
export { guestIdOf } from "./guest-ids.ts";
export type { HibernationState } from "./hibernation.ts";
export { type HostStats, readHostStats } from "./host-stats.ts";
export type { LoadSource, WaitingCopy } from "./load-source.ts";
export { abortable, endError, type Machine } from "./machine.ts";
export { Monitor } from "./monitor.ts";
export { devicesOf, guestWords, placeNics } from "./network.ts";
export {
  addInterface,
  type PresentInterface,
  type PresentNetwork,
  readNetwork,
  refreshNetwork,
  removeInterface,
  setRoutes,
  settleInterfaces,
} from "./network-changes.ts";
export {
  checkPciSources,
  type GuestPciDevices,
  noPort,
  type VfioPort,
  vfioPorts,
} from "./pci-devices.ts";
export { ReadyLocks } from "./ready-locks.ts";
export { isUnfinished, unfinishedDir } from "./record.ts";
export { type RestartConfig, type RestartPolicy, type RestartState, restartPolicies } from "./restart.ts";
export { resumeWith } from "./resume-with.ts";
export type { ReturningState, WayBack } from "./returning.ts";
export { type ExclusiveOptions, ROOT_SERIAL, Sandbox, type SandboxDeps } from "./sandbox.ts";
export { bootOf, savedConfig } from "./saved-config.ts";
export {
  decodeAnnotations,
  decodeEndCause,
  decodePending,
  isAtRest,
  type Pending,
  type SandboxedContainer,
  type SandboxIntent,
  type SandboxState,
  sandboxStateSchema,
} from "./state.ts";
export type { BootTemplate, TemplateSource, TemplateWish, VmPool } from "./template-source.ts";
export type { TrailConfig, TrailSettings } from "./trail.ts";
export { networkSteps } from "./wake-network.ts";
