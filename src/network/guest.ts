/** What the guest is told of its network. */
import { GATEWAY, GATEWAY_MAC } from "./layout.ts";
import type { NetworkState } from "./state.ts";

export interface GuestInterface {
  readonly name: string;
  readonly macAddress: string;
  readonly mtu: number;
  /** Each with its prefix. */
  readonly addresses: readonly string[];
}

export interface GuestRoute {
  readonly interfaceName: string;
  /** `default`, or a range. */
  readonly destination: string;
  /** What is on the link itself has none. */
  readonly gateway?: string | undefined;
}

export interface GuestNeighbour {
  readonly interfaceName: string;
  readonly address: string;
  readonly macAddress: string;
}

export interface GuestNetwork {
  readonly interfaces: readonly GuestInterface[];
  readonly routes: readonly GuestRoute[];
  readonly neighbours: readonly GuestNeighbour[];
}

const INTERFACE = "eth0";

export function guestNetwork({ macAddress, address, mtu }: NetworkState): GuestNetwork {
  return {
    interfaces: [{ name: INTERFACE, macAddress, mtu, addresses: [`${address}/32`] }],
    routes: [
      { interfaceName: INTERFACE, destination: `${GATEWAY}/32` },
      { interfaceName: INTERFACE, destination: "default", gateway: GATEWAY },
    ],
    neighbours: [{ interfaceName: INTERFACE, address: GATEWAY, macAddress: GATEWAY_MAC }],
  };
}

/** Whom the guest asks for names, where nobody said otherwise. */
export function guestNameServers({ nameServer }: NetworkState): readonly string[] {
  return nameServer === undefined ? [] : [GATEWAY];
}
