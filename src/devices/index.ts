/** What is plugged into a sandbox. */
export { endBackEndsOf, findBackEnds } from "./back-end-process.ts";
export { type DeviceState, decodeDeviceState, type GuestNode, type HypervisorDecoders } from "./device-state.ts";
export { checkHostUnused, inspectHostNode } from "./host-node.ts";
export type { DeviceRequest } from "./kinds.ts";
export { DeviceManager, type GuestQuestion, type ManagerDeps, SANDBOX, titleOf } from "./manager.ts";
export { VfioClaims } from "./vfio/claims.ts";
export { gpuAnnotations } from "./vfio/gpu-index.ts";
export { type PciHost, systemPciHost } from "./vfio/pci-host.ts";
export { controlFirst, isVfioSource, parseVfioSource } from "./vfio/source.ts";
export { endVirtiofsd, startVirtiofsd, type VirtiofsdConfig } from "./vhost-user-fs/virtiofsd.ts";
