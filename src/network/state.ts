/**
 * What a sandbox's state says of its network: all that is needed to undo it, and to make the same place again. Written before the
 * first step of its making, so that nothing of it is ever unknown.
 */
import { decodeProcessIdentity, type Field, networkLimits, type ProcessIdentity } from "../base/index.ts";
import { IPV4, MAC_ADDRESS } from "./addresses.ts";
import { decodePublishedPort, type PublishedPort } from "./ports.ts";

export interface NetworkState {
  readonly mode: "user";
  /** Name of its network namespace, as `ip netns` lists it. */
  readonly namespace: string;
  /** Of the guest's interface. */
  readonly macAddress: string;
  readonly address: string;
  readonly mtu: number;
  /** Of the host; the guest asks the gateway, which hands the question on. */
  readonly nameServer?: string | undefined;
  readonly ports: readonly PublishedPort[];
  /** The program behind a user-mode network, once it has been started. */
  readonly uplink?: ProcessIdentity | undefined;
}

const NAMESPACE = /^belljar-[0-9a-f]{8}-[0-9a-f]{12}$/;

export function decodeNetworkState(field: Field): NetworkState {
  return {
    mode: field.field("mode").oneOf(["user"]),
    // It is removed as it is read: nothing but a namespace of ours.
    namespace: field.field("namespace").string({ pattern: NAMESPACE }),
    macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }),
    address: field.field("address").string({ pattern: IPV4 }),
    mtu: field.field("mtu").integer({ min: 576, max: 65_535 }),
    nameServer: field.field("nameServer").optional((text) => text.string({ pattern: IPV4 })),
    ports: field.field("ports").array(decodePublishedPort, { maxItems: networkLimits.portsMax }),
    uplink: field.field("uplink").optional(decodeProcessIdentity),
  };
}
