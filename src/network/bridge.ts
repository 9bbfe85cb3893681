/**
 * Bridge networks, on the host's side: one bridge for each root, a port of it for each sandbox, and one table of rules, which is
 * written as a whole from what every sandbox has. So it does not matter at which step somebody was killed: the next who writes it
 * writes what is right. Nothing of others is touched.
 *
 * The ports are isolated from one another: between two sandboxes there is no way but through the host's rules.
 */
import { BelljarError, type Field, parseJson } from "../base/index.ts";
import { overlaps, parseRange, type Range, rangeText, toText } from "./addresses.ts";
import { UPLINK } from "./layout.ts";
import { linkedPeers } from "./links.ts";
import { tool, type UplinkLines } from "./namespace.ts";
import { EVERY_ADDRESS, type PublishedPort } from "./ports.ts";
import type { OwnNetworkState } from "./state.ts";

/** Of the bridge, in every root: what a copied guest knows of its way out stays true. */
const BRIDGE_MAC = "02:62:6a:00:00:02";

/** Ranges to choose from: private, and not those that others use first. */
const CANDIDATES: readonly Range[] = Array.from({ length: 64 }, (_, index) => ({
  address: (10 * 256 + 88 + index) * 65_536,
  prefix: 16,
}));

/** What a root has of the host for its bridge networks. */
export interface BridgeHost {
  /** Of the bridge, and with another separator of the table. */
  readonly name: string;
  readonly range: Range;
}

export function bridgeName(rootKey: string): string {
  return `bj-${rootKey}`;
}

/** The host's end of a sandbox's link. */
export function portName(sandboxId: string): string {
  return `bj${sandboxId}`;
}

export function gatewayOf({ address }: Range): string {
  return toText(address + 1);
}

/** A range that no address or route of the host is in. @throws BelljarError `NO_FREE_ADDRESS` */
export function chooseRange(used: readonly Range[]): Range {
  const found = CANDIDATES.find((range) => !used.some((other) => other.prefix > 0 && overlaps(range, other)));
  if (found !== undefined) return found;
  throw new BelljarError("NO_FREE_ADDRESS", "the host uses every range that a bridge could have", {
    remedy: "Use `--network user`.",
  });
}

/**
 * The next address that nobody has: not the one that was given back last, which others may still know.
 * @throws BelljarError `NO_FREE_ADDRESS`
 */
export function chooseAddress(range: Range, taken: ReadonlySet<string>, after: string | undefined): string {
  const size = 2 ** (32 - range.prefix);
  const last = after === undefined ? undefined : parseRange(after);
  const start = last !== undefined && overlaps(last, range) ? last.address - range.address : 1;
  for (let step = 1; step < size; step += 1) {
    const offset = (start + step) % size;
    // The network's own address, the gateway's, and the broadcast address.
    if (offset < 2 || offset === size - 1) continue;
    const address = toText(range.address + offset);
    if (!taken.has(address)) return address;
  }
  throw new BelljarError("NO_FREE_ADDRESS", `all addresses of ${rangeText(range)} are taken`);
}

/** Ranges that the host has routes to. */
export async function usedRanges(): Promise<readonly Range[]> {
  const text = await tool("ip", ["-json", "-4", "route", "show", "table", "all"], {});
  return parseJson(text, "ip", "NETWORK_FAILED")
    .array((route) => route.field("dst").optional((dst) => dst.string({ maxLength: 64 })))
    .flatMap((dst) => (dst === undefined ? [] : (parseRange(dst) ?? [])));
}

/** A sandbox's link to the bridge, on the host's side. */
export interface BridgePort {
  readonly sandboxId: string;
  /** Of its other end. */
  readonly namespace: string;
  readonly mtu: number;
}

/**
 * The bridge, and with it this host's forwarding, and a port of it, which is down: nothing gets through. As lines of a shell's; a bridge that
 * is there is success.
 */
export function portLines(host: BridgeHost, { sandboxId, namespace, mtu }: BridgePort): readonly string[] {
  const add = `link add ${portName(sandboxId)} mtu ${mtu} type veth peer name ${UPLINK} mtu ${mtu} netns ${namespace}`;
  return bridgeLines(host, [add, ...linkPortLines(host, sandboxId)]);
}

/** The same where the port is there: nothing as long as it is one of the bridge's. */
export function portLinesAgain(host: BridgeHost, sandboxId: string): readonly string[] {
  return [
    `if ! [ -e /sys/class/net/${host.name}/brif/${portName(sandboxId)} ]; then`,
    ...bridgeLines(host, linkPortLines(host, sandboxId)),
    "fi",
  ];
}

/** Lets through what the rules let through, by these ports. */
export function openPortLines(sandboxIds: readonly string[]): readonly string[] {
  return ["ip -batch - <<'LINKS'", ...sandboxIds.map((id) => `link set ${portName(id)} up`), "LINKS"];
}

function linkPortLines({ name }: BridgeHost, sandboxId: string): readonly string[] {
  const port = portName(sandboxId);
  return [`link set ${port} master ${name}`, `link set ${port} type bridge_slave isolated on`];
}

/** @param links lines of ip's for what is to be done when there is a bridge */
function bridgeLines({ name, range }: BridgeHost, links: readonly string[]): readonly string[] {
  return [
    `[ -d /proc/sys/net/ipv4/conf/${name} ] || ip link add ${name} type bridge`,
    "ip -batch - <<'LINKS'",
    `link set ${name} address ${BRIDGE_MAC} up`,
    `address replace ${gatewayOf(range)}/${range.prefix} dev ${name}`,
    ...links,
    "LINKS",
    `echo 1 >/proc/sys/net/ipv6/conf/${name}/disable_ipv6`,
    `echo 0 >/proc/sys/net/ipv4/conf/${name}/send_redirects`,
    // Ports that are published on a loopback address.
    `echo 1 >/proc/sys/net/ipv4/conf/${name}/route_localnet`,
    // A shell reads a byte at a time, and such a file ends after the first: no end of a line is seen.
    "read -r forwarding </proc/sys/net/ipv4/ip_forward || :",
    '[ "$forwarding" = 1 ] || echo 1 >/proc/sys/net/ipv4/ip_forward',
  ];
}

/** The other end of the link, in the sandbox's namespace. */
export function uplinkOf({ range }: BridgeHost): UplinkLines {
  const gateway = gatewayOf(range);
  return {
    settings: [
      // The host finds the guest's address here, though it is the guest's.
      `echo 1 >/proc/sys/net/ipv4/conf/${UPLINK}/proxy_arp`,
      `echo 0 >/proc/sys/net/ipv4/neigh/${UPLINK}/proxy_delay`,
    ],
    links: [
      `link set ${UPLINK} up`,
      `route add ${gateway}/32 dev ${UPLINK}`,
      `route add default via ${gateway} dev ${UPLINK}`,
      `neighbour replace ${gateway} lladdr ${BRIDGE_MAC} dev ${UPLINK} nud permanent`,
    ],
  };
}

/** What is not there is success. */
export async function removeLink(name: string): Promise<void> {
  try {
    await tool("ip", ["link", "delete", name], {});
  } catch (error) {
    if (await hasLink(name)) throw error;
  }
}

/** Ports that the bridge has, by the sandboxes' ids. */
export async function listPorts(bridge: string): Promise<readonly string[]> {
  if (!(await hasLink(bridge))) return [];
  const text = await tool("ip", ["-json", "link", "show", "master", bridge], {});
  const nameOf = (link: Field): string | undefined => link.field("ifname").optional((each) => each.string());
  return parseJson(text.trim() === "" ? "[]" : text, "ip", "NETWORK_FAILED")
    .array(nameOf)
    .flatMap((name) => /^bj([0-9a-f]{12})$/.exec(name ?? "")?.[1] ?? []);
}

async function hasLink(name: string): Promise<boolean> {
  return await tool("ip", ["link", "show", "dev", name], {}).then(
    () => true,
    () => false,
  );
}

/** The table as a whole, in one transaction; without networks there is none. */
export function hostRules({ name, range }: BridgeHost, networks: readonly OwnNetworkState[]): string {
  const table = name.replace("-", "_");
  // Named first, so that it can be deleted whether it is there or not.
  const without = [`table inet ${table} { }`, `delete table inet ${table}`];
  if (networks.length === 0) return [...without, ""].join("\n");
  const publish = networks.flatMap(({ ports, address }) => ports.map((port) => publishRule(port, address)));
  return [
    ...without,
    `table inet ${table} {`,
    "chain arrive {",
    "type nat hook prerouting priority -100; policy accept;",
    ...publish,
    "}",
    "chain within {",
    "type nat hook output priority -100; policy accept;",
    ...publish,
    "}",
    "chain leave {",
    "type nat hook postrouting priority 100; policy accept;",
    `ip saddr ${rangeText(range)} oifname != "${name}" masquerade`,
    `oifname "${name}" ip saddr 127.0.0.0/8 masquerade`,
    "}",
    "chain forward {",
    "type filter hook forward priority 0; policy accept;",
    `oifname "${name}" ct state established,related accept`,
    `oifname "${name}" ct status dnat accept`,
    ...networks.flatMap((network) =>
      linkedPeers(network, networks).map(
        ({ address }) => `iifname "${name}" oifname "${name}" ip saddr ${network.address} ip daddr ${address} accept`,
      ),
    ),
    `oifname "${name}" drop`,
    "}",
    "chain input {",
    "type filter hook input priority 0; policy accept;",
    `iifname "${name}" ct state established,related accept`,
    `iifname "${name}" jump host`,
    `iifname "${name}" drop`,
    "}",
    // What the rules of a sandbox's own namespace let through to the host, which is in none of its ranges unless allowed.
    "chain host {",
    ...networks.flatMap(({ address, nameServer, allowed = [] }) => [
      ...allowed.map((each) => `ip saddr ${address} ip daddr ${each} accept`),
      ...(nameServer === undefined
        ? []
        : [`ip saddr ${address} ip daddr ${nameServer} meta l4proto { tcp, udp } th dport 53 accept`]),
    ]),
    "}",
    "}",
    "",
  ].join("\n");
}

export async function writeHostRules(host: BridgeHost, networks: readonly OwnNetworkState[]): Promise<void> {
  await tool("nft", ["-f", "-"], { input: Buffer.from(hostRules(host, networks)) });
}

/** The number stays: the rules of the sandbox's namespace turn it into the guest's. */
function publishRule({ hostAddress, hostPort, protocol }: PublishedPort, address: string): string {
  const where = hostAddress === EVERY_ADDRESS ? "fib daddr type local" : `ip daddr ${hostAddress}`;
  return `${where} ${protocol} dport ${hostPort} dnat ip to ${address}`;
}
