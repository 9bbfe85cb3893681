/**
 * The rules of a sandbox's namespace, as text for `nft`. They stand outside of the guest, on the only way that its packets can take:
 * what is not from its one address is dropped before anything looks at it, what it may not reach is refused, and both are counted.
 */
import { networkLimits } from "../base/index.ts";
import { overlaps, parseRange } from "./addresses.ts";
import { questionMatch } from "./dns-rules.ts";
import { GATEWAY, TAP, UPLINK } from "./layout.ts";
import { bridgeMatch } from "./links.ts";
import type { Destination, Destinations } from "./policy.ts";
import type { OwnNetworkState } from "./state.ts";

/** Name of the table, and of the counter of what was dropped or refused. */
export const TABLE = "belljar";
export const DENIED = "denied";

/** Set of the addresses of those that are linked to the sandbox. */
export const LINKED = "linked";

/** In place of whatever rules there are, at one instant; where there are none, the kernel takes its time for nothing. */
export function replacing(rules: string): string {
  return [`table inet ${TABLE} { }`, `delete table inet ${TABLE}`, rules].join("\n");
}

type Guest = Pick<OwnNetworkState, "mode" | "address" | "links" | "macAddress" | "nameServer" | "ports">;

export function namespaceRules(
  { mode, address, links = [], macAddress, nameServer, ports }: Guest,
  to: Destinations,
): string {
  const deny = `counter name ${DENIED} drop`;
  return [
    `table inet ${TABLE} {`,
    `counter ${DENIED} { }`,
    `set ${LINKED} { type ipv4_addr; }`,
    ...addressSets(to).map(
      ({ set, addresses }) => `set ${set} { type ipv4_addr; elements = { ${addresses.join(", ")} }; }`,
    ),
    chain("guest", "type filter hook prerouting priority -300; policy accept;", [
      `iifname "${TAP}" ether saddr != ${macAddress} ${deny}`,
      `iifname "${TAP}" meta protocol ip ip saddr != ${address} ${deny}`,
      `iifname "${TAP}" meta protocol != { ip, arp } ${deny}`,
    ]),
    chain("arrive", "type nat hook prerouting priority -100; policy accept;", [
      ...(nameServer === undefined
        ? []
        : [`iifname "${TAP}" ip daddr ${GATEWAY} meta l4proto { tcp, udp } th dport 53 dnat ip to ${nameServer}`]),
      ...ports.map(
        ({ protocol, hostPort, containerPort }) =>
          `iifname "${UPLINK}" ${protocol} dport ${hostPort} dnat ip to ${address}:${containerPort}`,
      ),
    ]),
    // On a bridge the guest's address is its own outside, too.
    ...(mode === "bridge"
      ? []
      : [chain("leave", "type nat hook postrouting priority 100; policy accept;", [`oifname "${UPLINK}" masquerade`])]),
    chain("input", "type filter hook input priority 0; policy drop;", [
      'iifname "lo" accept',
      "ct state established,related accept",
      `iifname "${TAP}" icmp type echo-request accept`,
      `iifname "${TAP}" goto refuse`,
    ]),
    chain("forward", "type filter hook forward priority 0; policy drop;", [
      // Every question by itself: that one of a flow was let through says nothing of the next.
      ...(nameServer === undefined || !asksSelectively(to)
        ? []
        : [`iifname "${TAP}" oifname "${UPLINK}" ip daddr ${nameServer} ct status dnat goto names`]),
      "ct state established,related accept",
      `ct state invalid ${deny}`,
      `iifname "${TAP}" ct state new ct count over ${networkLimits.connectionsMax} ${deny}`,
      `iifname "${UPLINK}" oifname "${TAP}" ct status dnat accept`,
      ...(mode === "bridge" ? [`iifname "${UPLINK}" oifname "${TAP}" ip saddr @${LINKED} accept`] : []),
      `iifname "${TAP}" oifname "${UPLINK}" ct status dnat accept`,
      `iifname "${TAP}" oifname "${UPLINK}" goto outbound`,
      deny,
    ]),
    chain("outbound", undefined, [
      ...to.deny.map((each, index) => `${match(each, setName("deny", index))} goto refuse`),
      ...to.allow.map((each, index) => `${match(each, setName("allow", index))} accept`),
      ...(links.length === 0 ? [] : [`${bridgeMatch(address)} accept`]),
      `ip daddr { ${withoutCovered(to.closed).join(", ")} } goto refuse`,
      to.default === "open" ? "accept" : "goto refuse",
    ]),
    chain("names", undefined, nameRules(to)),
    // A refusal is told: a program that waits for a time limit instead looks as if it hung.
    chain("refuse", undefined, [`counter name ${DENIED}`, "reject with icmpx type admin-prohibited"]),
    "}",
    "",
  ].join("\n");
}

function chain(name: string, hook: string | undefined, rules: readonly string[]): string {
  return [`chain ${name} {`, ...(hook === undefined ? [] : [hook]), ...rules, "}"].join("\n");
}

/** Whether some names may not be asked for. */
function asksSelectively({ deny, default: word }: Destinations): boolean {
  return word === "closed" || deny.some(({ name }) => name !== undefined);
}

function nameRules({ allow, deny, default: word }: Destinations): readonly string[] {
  const of = (list: readonly Destination[]): string[] => [...new Set(list.flatMap(({ name }) => name ?? []))];
  return [
    ...of(deny).map((name) => `${questionMatch(name)} goto refuse`),
    ...(word === "closed" ? of(allow).map((name) => `${questionMatch(name)} accept`) : []),
    word === "closed" ? "goto refuse" : "accept",
  ];
}

/** The addresses of each rule's host name, in a set of its own, so that there can be more later. */
export function addressSets({
  allow,
  deny,
}: Destinations): { readonly set: string; readonly addresses: readonly string[] }[] {
  const of = (list: "allow" | "deny", destinations: readonly Destination[]) =>
    destinations.flatMap(({ name, ranges }, index) =>
      name === undefined ? [] : [{ set: setName(list, index), addresses: [...new Set(ranges.map(withoutPrefix))] }],
    );
  return [...of("allow", allow), ...of("deny", deny)];
}

function setName(list: "allow" | "deny", index: number): string {
  return `${list}${index}`;
}

function withoutPrefix(range: string): string {
  return range.replace(/\/.*/, "");
}

function match({ ranges, port, name }: Destination, set: string): string {
  const where = name === undefined ? `ip daddr { ${withoutCovered(ranges).join(", ")} }` : `ip daddr @${set}`;
  return port === undefined ? where : `${where} meta l4proto { tcp, udp } th dport ${port}`;
}

/** A set takes no two ranges of which one is in the other. */
function withoutCovered(texts: readonly string[]): string[] {
  const ranges = [...new Set(texts)].map((text) => ({ text, range: parseRange(text) }));
  return ranges
    .filter(({ text, range }) =>
      ranges.every(
        (other) =>
          other.text === text ||
          range === undefined ||
          other.range === undefined ||
          other.range.prefix > range.prefix ||
          !overlaps(other.range, range),
      ),
    )
    .map(({ text }) => text);
}
