/** What is plugged into a sandbox. */
export { endBackEndsOf, findBackEnds } from "./back-end-process.ts";
export { type DeviceState, decodeDeviceState, type GuestNode, type HypervisorDecoders } from "./device-state.ts";
export { inspectHostNode } from "./host-node.ts";
export type { DeviceRequest } from "./kinds.ts";
export { DeviceManager, type GuestQuestion, type ManagerDeps, SANDBOX, titleOf } from "./manager.ts";
export { endVirtiofsd, startVirtiofsd, type VirtiofsdConfig } from "./vhost-user-fs/virtiofsd.ts";
