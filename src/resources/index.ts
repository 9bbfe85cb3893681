/** What the host has and can do. */
export type { Capability } from "./capability.ts";
export { type HostFacts, type InspectHostDeps, inspectHost } from "./inspect-host.ts";
