/**
 * What a sandbox's state says of its network: all that is needed to undo it, and to make the same place again. Written before the
 * first step of its making, so that nothing of it is ever unknown.
 */
import { decodeProcessIdentity, type Field, networkLimits, type ProcessIdentity } from "../base/index.ts";
import { IPV4, MAC_ADDRESS, parseRange } from "./addresses.ts";
import type { NetworkSettings } from "./config.ts";
import { decodeGivenNetwork, type GivenNetworkState } from "./given-state.ts";
import { decodeGuestRoute, type GuestRoute } from "./guest-network.ts";
import { decodeLink, type Link } from "./links.ts";
import { decodePublishedPort, type PublishedPort } from "./ports.ts";
import { decodeRates, type Rates } from "./rates.ts";

/** In a namespace of the sandbox's own. */
export interface OwnNetworkState {
  readonly mode: Exclude<NetworkSettings["mode"], "netns">;
  /** Name of its network namespace, as `ip netns` lists it. */
  readonly namespace: string;
  /** Of the guest's interface. */
  readonly macAddress: string;
  readonly address: string;
  readonly mtu: number;
  /** Of the host; the guest asks the gateway, which hands the question on. */
  readonly nameServer?: string | undefined;
  readonly ports: readonly PublishedPort[];
  /** Addresses and ranges that the host's own rules let a bridge network reach on the host itself: what was allowed, looked up. */
  readonly allowed?: readonly string[] | undefined;
  readonly rates?: Rates | undefined;
  readonly links?: readonly Link[] | undefined;
  /** Those that somebody has set in place of the usual ones. */
  readonly routes?: readonly GuestRoute[] | undefined;
  /** The program behind a user-mode network, once it has been started. */
  readonly uplink?: ProcessIdentity | undefined;
}

export type NetworkState = OwnNetworkState | GivenNetworkState;

const NAMESPACE = /^belljar-[0-9a-f]{8}-[0-9a-f]{12}$/;

export function decodeNetworkState(field: Field): NetworkState {
  const mode = field.field("mode").oneOf(["user", "bridge", "netns"]);
  if (mode === "netns") return decodeGivenNetwork(field);
  return {
    mode,
    // It is removed as it is read: nothing but a namespace of ours.
    namespace: field.field("namespace").string({ pattern: NAMESPACE }),
    macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }),
    address: field.field("address").string({ pattern: IPV4 }),
    mtu: field.field("mtu").integer({ min: 576, max: 65_535 }),
    nameServer: field.field("nameServer").optional((text) => text.string({ pattern: IPV4 })),
    ports: field.field("ports").array(decodePublishedPort, { maxItems: networkLimits.portsMax }),
    allowed: field
      .field("allowed")
      .optional((list) =>
        list.array(decodeRange, { maxItems: networkLimits.rulesMax * networkLimits.addressesPerNameMax }),
      ),
    rates: field.field("rates").optional(decodeRates),
    links: field.field("links").optional((list) => list.array(decodeLink, { maxItems: networkLimits.linksMax })),
    routes: field
      .field("routes")
      .optional((list) => list.array(decodeGuestRoute, { maxItems: networkLimits.routesMax })),
    uplink: field.field("uplink").optional(decodeProcessIdentity),
  };
}

/** It becomes a part of a rule as it is read. */
function decodeRange(field: Field): string {
  const text = field.string({ maxLength: 18 });
  if (parseRange(text) !== undefined) return text;
  throw field.expected("an address or range");
}
