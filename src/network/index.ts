/**
 * The network of a sandbox: a namespace of its own with a link to the guest, rules, and a way out.
 *
 * For a VM that is restored or forked from one that had a network: plan a network for the copy (`Networks.plan`: its own hardware
 * address, address and ports), write it down, make it, and start the VMM in its namespace with the NIC (`nicOf`) of the *saved* VM on
 * its command line, since device state holds the saved hardware address. Then tell the guest (`guestNetwork`): the agent gives the
 * interface its new hardware address, addresses and routes. The guest's gateway has the same address and hardware address in every
 * namespace, so nothing that the guest knows of its neighbours is stale.
 */
export {
  decodeNetworkSettings,
  type NetworkConfig,
  type NetworkMode,
  type NetworkSettings,
  networkModes,
  settleNetwork,
} from "./config.ts";
export {
  type GuestInterface,
  type GuestNetwork,
  type GuestRoute,
  guestNameServers,
  guestNetwork,
} from "./guest.ts";
export { NIC, namespacePath, TAP } from "./layout.ts";
export { type MakeOptions, type Networks, noNetworks, openNetworks } from "./networks.ts";
export { type PolicyConfig, type PolicyDefault, policyDefaults } from "./policy.ts";
export { type PortConfig, type PublishedPort, parsePort, protocols } from "./ports.ts";
export { decodeNetworkState, type NetworkState } from "./state.ts";
