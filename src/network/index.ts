/**
 * The network of a sandbox: a namespace of its own with a link to the guest, rules, and a way out.
 *
 * A copy of a sandbox (restored, forked) has the settings that `copiedNetwork` makes of its source's, and from there goes the way of
 * every other one: planned, written down, made. Its VMM runs in the new namespace with the saved VM's devices, whose NIC finds a tap
 * of the same name there; then the guest is told, before anything of it runs, which gives the NIC its new hardware address, and where it
 * has another address, that with its routes. The guest's gateway has the same address and hardware address in every namespace, so that
 * nothing that the guest knows of its neighbours is stale.
 */
export { MAC_ADDRESS } from "./addresses.ts";
export {
  type CopiedNetworkConfig,
  copiedNetwork,
  decodeNetworkSettings,
  type ExpectedNetwork,
  expectedNetwork,
  type NetworkConfig,
  type NetworkMode,
  type NetworkSettings,
  networkModes,
  settleNetwork,
} from "./config.ts";
export { newEndpoint, withFound } from "./given-networks.ts";
export { type EndpointModel, endpointModels } from "./given-place.ts";
export { linkLocal } from "./given-rules.ts";
export type { FoundInterface, FoundNetwork } from "./given-scan.ts";
export type { EndpointKind, EndpointState, GivenNetworkState } from "./given-state.ts";
export { guestNameServers, guestNetwork, type Nic, networkPath, nicName, nicsOf } from "./guest.ts";
export {
  checkGuestRoutes,
  GUEST_INTERFACE,
  type GuestInterface,
  type GuestNetwork,
  type GuestRoute,
  isRange,
} from "./guest-network.ts";
export { namespacePath } from "./layout.ts";
export type { Link } from "./links.ts";
export { type MakeOptions, type Networks, noNetworks, openNetworks } from "./networks.ts";
export { type PolicyConfig, type PolicyDefault, policyDefaults } from "./policy.ts";
export { decodePublishedPort, type PortConfig, type PublishedPort, parsePort, protocols } from "./ports.ts";
export type { RateConfig } from "./rates.ts";
export { decodeNetworkState, type NetworkState, type OwnNetworkState } from "./state.ts";
export { parseTraffic, type Traffic } from "./traffic.ts";
export { WaitingPorts, type WaitingPortsDeps } from "./waiting-ports.ts";
