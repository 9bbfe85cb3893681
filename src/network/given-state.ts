/** What a sandbox's state says of a namespace that is somebody else's: which one, what was found in it, and what of ours is there. */
import { type Field, isId, networkLimits } from "../base/index.ts";
import { MAC_ADDRESS } from "./addresses.ts";
import { decodeGivenPlace, type GivenPlace } from "./given-place.ts";
import {
  decodeGuestNeighbour,
  decodeGuestRoute,
  GUEST_INTERFACE,
  type GuestNeighbour,
  type GuestRoute,
  isAddress,
  isRange,
} from "./guest-network.ts";
import { decodeRates, type Rates } from "./rates.ts";

export const endpointKinds = ["veth", "macvlan", "macvtap", "ipvlan", "tap"] as const;
export type EndpointKind = (typeof endpointKinds)[number];

/** An interface of the namespace that the VM has. */
export interface EndpointState {
  /** Its number in the sandbox: the VM's device is `nicN`, the tap of ours `bjIDN`. */
  readonly index: number;
  /** In the namespace. */
  readonly source: string;
  readonly kind: EndpointKind;
  /** In the guest. */
  readonly name: string;
  readonly macAddress: string;
  readonly mtu: number;
  /** Each with its prefix. */
  readonly addresses: readonly string[];
  /** It is a tap whose other end nobody has: the VM takes that, and there is no tap of ours. */
  readonly direct?: boolean | undefined;
  /** Being plugged or unplugged: whoever finds it so takes it away. */
  readonly pending?: boolean | undefined;
}

export interface GivenNetworkState extends GivenPlace {
  readonly mode: "netns";
  readonly sandboxId: string;
  /** What the path named when the sandbox was started: one that takes its place is another. */
  readonly namespaceId: string;
  readonly endpoints: readonly EndpointState[];
  readonly routes: readonly GuestRoute[];
  readonly neighbours: readonly GuestNeighbour[];
  readonly nameServers: readonly string[];
  /** None: what comes in is the owner's affair. */
  readonly ports: readonly [];
  readonly rates?: Rates | undefined;
  /** Interfaces of the namespace that somebody has taken from the sandbox: they do not come back by themselves. */
  readonly ignored?: readonly string[] | undefined;
  /** Somebody has set the routes: those of the namespace are not followed any more. */
  readonly ownRoutes?: boolean | undefined;
}

/** As the kernel names interfaces: no slash, no blank, at most 15 bytes. It becomes a part of a rule. */
export const INTERFACE = /^[A-Za-z0-9_.:@-]{1,15}$/;

export function decodeGivenNetwork(field: Field): GivenNetworkState {
  const sandboxId = field.field("sandboxId").string({ maxLength: 64 });
  if (!isId(sandboxId)) throw field.field("sandboxId").expected("an id");
  const { interfacesMax, routesMax } = networkLimits;
  return {
    mode: "netns",
    ...decodeGivenPlace(field),
    sandboxId,
    namespaceId: field.field("namespaceId").string({ pattern: /^\d+:\d+$/ }),
    endpoints: field.field("endpoints").array(decodeEndpoint, { maxItems: interfacesMax }),
    routes: field.field("routes").array(decodeGuestRoute, { maxItems: routesMax }),
    neighbours: field.field("neighbours").array(decodeGuestNeighbour, { maxItems: routesMax }),
    nameServers: field.field("nameServers").array(decodeAddress, { maxItems: networkLimits.nameServersMax }),
    ports: [],
    rates: field.field("rates").optional(decodeRates),
    ignored: field
      .field("ignored")
      .optional((list) => list.array((name) => name.string({ pattern: INTERFACE }), { maxItems: interfacesMax })),
    ownRoutes: field.field("ownRoutes").optional((value) => value.boolean()),
  };
}

function decodeEndpoint(field: Field): EndpointState {
  return {
    index: field.field("index").integer({ min: 0, max: networkLimits.interfacesMax - 1 }),
    source: field.field("source").string({ pattern: INTERFACE }),
    kind: field.field("kind").oneOf(endpointKinds),
    name: field.field("name").string({ pattern: GUEST_INTERFACE }),
    macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }),
    mtu: field.field("mtu").integer({ min: 68, max: 65_535 }),
    addresses: field.field("addresses").array(decodeRange, { maxItems: networkLimits.addressesMax }),
    direct: field.field("direct").optional((value) => value.boolean()),
    pending: field.field("pending").optional((value) => value.boolean()),
  };
}

function decodeRange(field: Field): string {
  const text = field.string({ maxLength: 64 });
  if (isRange(text)) return text;
  throw field.expected("an address with its prefix");
}

function decodeAddress(field: Field): string {
  const text = field.string({ maxLength: 45 });
  if (isAddress(text)) return text;
  throw field.expected("an address");
}
