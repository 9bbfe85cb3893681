/** What is in a given namespace, as the VM is to have it: its interfaces with their addresses, and the routes and neighbours of these. */
import { readFile } from "node:fs/promises";
import { BelljarError, type Field, networkLimits, parseJson } from "../base/index.ts";
import { IPV4, MAC_ADDRESS } from "./addresses.ts";
import { within } from "./given-namespace.ts";
import { OUR_TAP } from "./given-rules.ts";
import { type EndpointKind, INTERFACE } from "./given-state.ts";
import { type GuestNeighbour, type GuestRoute, isAddress, isRange } from "./guest-network.ts";
import { hostNameServer } from "./host-facts.ts";

export interface FoundInterface {
  readonly source: string;
  readonly kind: EndpointKind;
  readonly macAddress: string;
  readonly mtu: number;
  readonly addresses: readonly string[];
  /** A tap that nobody has the other end of. */
  readonly isFree: boolean;
}

export interface FoundNetwork {
  readonly interfaces: readonly FoundInterface[];
  /** `interfaceName` is the namespace's. */
  readonly routes: readonly GuestRoute[];
  readonly neighbours: readonly GuestNeighbour[];
  /** Sandboxes that have a tap in it. */
  readonly owners: readonly string[];
}

/** @throws BelljarError `NETWORK_UNAVAILABLE` for an interface that a VM cannot be joined to, `NETWORK_FAILED` */
export async function scanNamespace(path: string, signal?: AbortSignal): Promise<FoundNetwork> {
  const list = async (...args: readonly string[]): Promise<Field> => {
    const text = await within(path, ["ip", "-json", ...args], { signal });
    return parseJson(text.trim() === "" ? "[]" : text, "ip", "NETWORK_FAILED");
  };
  const [links, v4, v6, neighbours] = await Promise.all([
    list("-details", "address", "show"),
    list("-4", "route", "show", "table", "main"),
    list("-6", "route", "show", "table", "main"),
    list("-4", "neighbour", "show"),
  ]);
  const all = links.array(readLink);
  const interfaces = all.flatMap((link) => endpointOf(link) ?? []);
  if (interfaces.length > networkLimits.interfacesMax) {
    throw new BelljarError("NETWORK_UNAVAILABLE", `${path} has ${interfaces.length} interfaces`, {
      facts: { max: networkLimits.interfacesMax },
    });
  }
  const names = new Set(interfaces.map(({ source }) => source));
  const routes = [...v4.array(readRoute), ...v6.array(readRoute)]
    .flat()
    .filter((each) => names.has(each.interfaceName));
  const onLink = routes.filter(({ gateway }) => gateway === undefined);
  const inOrder = [...onLink, ...routes.filter(({ gateway }) => gateway !== undefined)];
  const gateways = new Set(routes.flatMap(({ gateway }) => gateway ?? []));
  return {
    interfaces,
    routes: inOrder.slice(0, networkLimits.routesMax / 2),
    neighbours: neighbours
      .array((each) => readNeighbour(each, gateways))
      .flatMap((each) => (each === undefined || !names.has(each.interfaceName) ? [] : [each]))
      .slice(0, networkLimits.routesMax / 2),
    owners: [...new Set(all.flatMap(({ name }) => OUR_TAP.exec(name)?.[1] ?? []))],
  };
}

/** Whom those in the namespace ask for names: as `ip netns exec` would have it, otherwise the host's. */
export async function nameServersOf(path: string): Promise<readonly string[]> {
  const name = /^\/(?:var\/)?run\/netns\/([^/]+)$/.exec(path)?.[1];
  const text = name === undefined ? "" : await readFile(`/etc/netns/${name}/resolv.conf`, "utf8").catch(() => "");
  const named = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, server = ""]) => server).filter(isAddress);
  if (named.length > 0) return named.slice(0, networkLimits.nameServersMax);
  const ofHost = await hostNameServer();
  return ofHost === undefined ? [] : [ofHost];
}

interface Link {
  readonly name: string;
  readonly kind: string | undefined;
  readonly type: string;
  readonly flags: readonly string[];
  readonly hasMaster: boolean;
  readonly macAddress: string;
  readonly mtu: number;
  readonly addresses: readonly string[];
  /** Of a tunnel or an ipvlan: how it works. */
  readonly detail: string | undefined;
  /** Where it sits, when it is a device of the host. */
  readonly device: string | undefined;
}

function readLink(field: Field): Link {
  const text = (of: Field, name: string): string | undefined =>
    of.field(name).optional((value) => value.string({ maxLength: 256 }));
  const info = field.field("linkinfo");
  const data = info.optional((value) => value.field("info_data"));
  const addresses = field.field("addr_info").array((each) => {
    const [local, prefix] = [
      text(each, "local"),
      each.field("prefixlen").optional((n) => n.integer({ min: 0, max: 128 })),
    ];
    const isOwn = text(each, "scope") === "global" && local !== undefined && prefix !== undefined;
    return isOwn && each.field("temporary").isAbsent ? [`${local}/${prefix}`] : [];
  });
  return {
    name: text(field, "ifname") ?? "",
    kind: info.optional((value) => text(value, "info_kind")),
    type: text(field, "link_type") ?? "",
    flags: field.field("flags").array((flag) => flag.string({ maxLength: 64 })),
    hasMaster: !field.field("master").isAbsent,
    macAddress: text(field, "address") ?? "",
    mtu: field.field("mtu").integer({ min: 0 }),
    addresses: addresses.flat().filter(isRange).slice(0, networkLimits.addressesMax),
    detail: data?.optional((value) => text(value, "type") ?? text(value, "mode")),
    device: text(field, "parentdev"),
  };
}

/** Undefined for what the VM does not get. */
function endpointOf(link: Link): FoundInterface | undefined {
  const { name: source, macAddress, mtu, addresses, flags } = link;
  const isUp = flags.includes("UP");
  // Loopback is each one's own; what the kernel puts into every namespace is down and has no address.
  if (link.type === "loopback" || link.hasMaster || OUR_TAP.test(source) || !(isUp || addresses.length > 0)) {
    return undefined;
  }
  const kind = kindOf(link);
  if (!INTERFACE.test(source) || !MAC_ADDRESS.test(macAddress))
    throw cannotJoin(link, "has no name or address to go by");
  return { source, kind, macAddress, mtu, addresses, isFree: kind === "tap" && flags.includes("NO-CARRIER") };
}

function kindOf(link: Link): EndpointKind {
  const { kind, detail } = link;
  switch (kind) {
    case "veth":
    case "macvlan":
    case "macvtap":
      return kind;
    case "ipvlan":
      if (detail !== undefined && detail !== "l2") throw cannotJoin(link, "is an ipvlan without layer 2");
      return kind;
    case "tun":
      if (detail !== "tap") throw cannotJoin(link, "is a tunnel without layer 2");
      return "tap";
    case undefined:
      throw cannotJoin(
        link,
        `is a device of the host${link.device === undefined ? "" : ` (${link.device})`}`,
        "Hand the device itself over, with `device add --kind vfio`; or put a macvlan of it into the namespace.",
      );
    default:
      throw cannotJoin(link, `is of the kind ${kind}`);
  }
}

function cannotJoin({ name }: Link, what: string, remedy?: string): BelljarError {
  return new BelljarError("NETWORK_UNAVAILABLE", `a VM cannot be joined to the interface ${name}, which ${what}`, {
    facts: { interface: name },
    remedy: remedy ?? "It can be to veth, macvlan, macvtap, ipvlan (layer 2) and tap; set others down.",
  });
}

function readRoute(field: Field): readonly GuestRoute[] {
  const text = (name: string): string | undefined =>
    field.field(name).optional((value) => value.string({ maxLength: 128 }));
  const [dst = "", dev = "", via] = [text("dst"), text("dev"), text("gateway")];
  // The kernel makes those of its own again, of the addresses.
  if (text("protocol") === "kernel" || (text("type") ?? "unicast") !== "unicast") return [];
  const destination = dst === "default" || dst.includes("/") ? dst : `${dst}/${dst.includes(":") ? 128 : 32}`;
  if (destination !== "default" && !isRange(destination)) return [];
  if (via !== undefined && !isAddress(via)) return [];
  const flags = field.field("flags").optional((list) => list.array((flag) => flag.string({ maxLength: 64 }))) ?? [];
  const route = { interfaceName: dev, destination, gateway: via };
  if (via === undefined || !flags.includes("onlink")) return [route];
  return [{ interfaceName: dev, destination: `${via}/${via.includes(":") ? 128 : 32}` }, route];
}

/** What somebody has set, and the gateways as far as they are known: the guest need not ask. */
function readNeighbour(field: Field, gateways: ReadonlySet<string>): GuestNeighbour | undefined {
  const text = (name: string): string => field.field(name).optional((value) => value.string({ maxLength: 128 })) ?? "";
  const states = field.field("state").optional((list) => list.array((state) => state.string({ maxLength: 64 }))) ?? [];
  const [address, macAddress] = [text("dst"), text("lladdr")];
  const isLasting = states.includes("PERMANENT") || (gateways.has(address) && states.includes("REACHABLE"));
  if (!isLasting || !IPV4.test(address) || !MAC_ADDRESS.test(macAddress)) return undefined;
  return { interfaceName: text("dev"), address, macAddress };
}
