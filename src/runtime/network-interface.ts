/** What callers see of a sandbox's network, and what they can change of it. Only types. */
import type { GuestRoute, NetworkMode, PublishedPort } from "../network/index.ts";
import type { PresentInterface } from "../sandbox/index.ts";
import type { CallOptions } from "./call-options.ts";

/** The network of a running sandbox. */
export interface SandboxNetwork {
  /** But for loopback, as the guest's kernel has them. */
  interfaces(options?: CallOptions): Promise<readonly InterfaceInfo[]>;
  /**
   * Gives the sandbox an interface that its namespace has; for `netns` networks. One that it has is success.
   * @throws BelljarError `INTERFACE_NOT_FOUND`, `NETWORK_UNAVAILABLE` for one that a VM cannot be joined to, `INVALID_ARGUMENT`
   */
  addInterface(source: string, options?: CallOptions): Promise<void>;
  /** Named as in the guest or as in the namespace, where it stays. @throws BelljarError `INTERFACE_NOT_FOUND`, `DEVICE_REFUSED` */
  removeInterface(name: string, options?: CallOptions): Promise<void>;
  routes(options?: CallOptions): Promise<readonly RouteInfo[]>;
  /** In place of those that there are; from then on those of a given namespace are not followed any more. */
  setRoutes(routes: readonly RouteInfo[], options?: CallOptions): Promise<void>;
  /** Looks now what has changed in a given namespace. Answers whether anything had. */
  refresh(options?: CallOptions): Promise<boolean>;
}

export type InterfaceInfo = PresentInterface;
export type RouteInfo = GuestRoute;

export interface NetworkInfo {
  readonly mode: NetworkMode;
  /** Path of its network namespace on the host. */
  readonly namespace: string;
  /** Of the guest's first interface. */
  readonly macAddress: string;
  /** Of all interfaces. */
  readonly addresses: readonly string[];
  /** Those that it has from its namespace, with their names there. */
  readonly interfaces?: readonly NetworkInterfaceInfo[] | undefined;
  readonly ports: readonly PublishedPort[];
}

export interface NetworkInterfaceInfo {
  readonly name: string;
  readonly source: string;
  /** Such as `veth`. */
  readonly kind: string;
  readonly macAddress: string;
  readonly mtu: number;
  readonly addresses: readonly string[];
}
