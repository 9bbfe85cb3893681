/** What the host has and can do. */
export type { Capability } from "./capability.ts";
export { type HostCgroups, type HostCgroupsDeps, noCgroups, openHostCgroups, readHierarchies } from "./host-cgroups.ts";
export type { HostFacts } from "./host-facts.ts";
export { type InspectHostDeps, inspectHost } from "./inspect-host.ts";
export { decodeCgroup, noteCgroups, notedCgroups } from "./noted-cgroups.ts";
export {
  type ContainerNeeds,
  parseCpuset,
  type Sizing,
  type SizingRules,
  sizeVm,
} from "./sizing.ts";
