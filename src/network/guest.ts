/** What the guest is told of its network, and which devices its VM has for it. */
import { tapOf } from "./given-rules.ts";
import type { GuestNetwork, GuestRoute } from "./guest-network.ts";
import { GATEWAY, GATEWAY_MAC, NIC, namespacePath, TAP } from "./layout.ts";
import type { NetworkState } from "./state.ts";

const INTERFACE = "eth0";

/** Those of a namespace of its own, where nobody has set others. */
const ROUTES: readonly GuestRoute[] = [
  { interfaceName: INTERFACE, destination: `${GATEWAY}/32` },
  { interfaceName: INTERFACE, destination: "default", gateway: GATEWAY },
];

export function guestNetwork(network: NetworkState): GuestNetwork {
  if (network.mode === "netns") {
    const endpoints = network.endpoints.filter(({ pending }) => pending !== true);
    const names = new Set(endpoints.map(({ name }) => name));
    const isThere = ({ interfaceName }: { readonly interfaceName: string }): boolean => names.has(interfaceName);
    return {
      interfaces: endpoints.map(({ index, name, macAddress, mtu, addresses }) => ({
        name,
        nic: nicName(index),
        macAddress,
        mtu,
        addresses,
      })),
      routes: network.routes.filter(isThere),
      neighbours: network.neighbours.filter(isThere),
    };
  }
  const { macAddress, address, mtu, routes = ROUTES } = network;
  return {
    interfaces: [{ name: INTERFACE, nic: NIC, macAddress, mtu, addresses: [`${address}/32`] }],
    routes,
    neighbours: [{ interfaceName: INTERFACE, address: GATEWAY, macAddress: GATEWAY_MAC }],
  };
}

/** Whom the guest asks for names, where nobody said otherwise. */
export function guestNameServers(network: NetworkState): readonly string[] {
  if (network.mode === "netns") return network.nameServers;
  return network.nameServer === undefined ? [] : [GATEWAY];
}

export interface Nic {
  /** Of the device in the VM. */
  readonly id: string;
  /** In the namespace that the VMM runs in. */
  readonly tap: string;
  readonly macAddress: string;
}

/** The network devices that the VM is to have, also those that are just being plugged or unplugged. */
export function nicsOf(network: NetworkState): readonly Nic[] {
  if (network.mode !== "netns") return [{ id: NIC, tap: TAP, macAddress: network.macAddress }];
  return network.endpoints.map((endpoint) => ({
    id: nicName(endpoint.index),
    tap: tapOf(network.sandboxId, endpoint),
    macAddress: endpoint.macAddress,
  }));
}

/** Of the namespace that the VMM is to run in. */
export function networkPath(network: NetworkState): string {
  return network.mode === "netns" ? network.path : namespacePath(network.namespace);
}

export function nicName(index: number): string {
  return `nic${index}`;
}
