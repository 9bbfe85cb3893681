/**
 * How the VM is joined to an interface of a given namespace: what arrives at the interface goes to our tap, and what the guest sends
 * goes out of the interface, both before anything of the namespace looks at it. That is one table of nftables with a name of ours, so
 * that it comes and goes in one step, and nothing of the namespace's owner (qdiscs, filters, tables, addresses) is touched.
 *
 * The guest may send from its hardware address and its addresses only; everything else is dropped and counted.
 */
import type { EndpointState, GivenNetworkState } from "./given-state.ts";
import { burstBytes } from "./rates.ts";

/** Name of the counter of what was dropped. */
const DENIED = "denied";

export function givenTable(sandboxId: string): string {
  return `belljar_${sandboxId}`;
}

/** The VMM's end: of ours, or the namespace's own. */
export function tapOf(sandboxId: string, { index, source, direct }: EndpointState): string {
  return direct === true ? source : `bj${sandboxId}${index}`;
}

/** Tells a tap of ours from other interfaces, whichever sandbox's. */
export const OUR_TAP = /^bj([0-9a-f]{12})\d$/;

/** The table as a whole, whatever there was; with the count so far. Those that are being unplugged are not in it. */
export function givenRules(network: GivenNetworkState, denied: number): string {
  const table = givenTable(network.sandboxId);
  const chains = network.endpoints
    .filter(({ pending }) => pending !== true)
    .flatMap((endpoint) => endpointChains(network, endpoint));
  return [
    // Named first, so that it can be deleted whether it is there or not.
    `table netdev ${table} { }`,
    `delete table netdev ${table}`,
    `table netdev ${table} {`,
    `counter ${DENIED} { packets ${denied} bytes 0 }`,
    ...chains,
    "}",
    "",
  ].join("\n");
}

function endpointChains({ sandboxId, rates }: GivenNetworkState, endpoint: EndpointState): string[] {
  const { index, source, macAddress, addresses, direct } = endpoint;
  const tap = tapOf(sandboxId, endpoint);
  const [deny, pass] = [`counter name ${DENIED} drop`, direct === true ? "accept" : `fwd to "${source}"`];
  const [v4, v6] = [plain(addresses, "."), plain(addresses, ":")];
  const { outBytesPerSecond: rate } = rates ?? {};
  return [
    ...(direct === true
      ? []
      : [
          `chain in${index} {`,
          `type filter hook ingress device "${source}" priority 0; policy accept;`,
          `fwd to "${tap}"`,
          "}",
        ]),
    `chain out${index} {`,
    `type filter hook ingress device "${tap}" priority 0; policy drop;`,
    `ether saddr != ${macAddress} ${deny}`,
    ...(rate === undefined ? [] : [`limit rate over ${rate} bytes/second burst ${burstBytes(rate)} bytes ${deny}`]),
    ...(v4.length === 0
      ? []
      : [
          // One that asks whether an address is free has none yet.
          `ether type arp arp saddr ether ${macAddress} arp saddr ip { ${[...v4, "0.0.0.0"].join(", ")} } ${pass}`,
          `ether type ip ip saddr { ${v4.join(", ")} } ${pass}`,
        ]),
    ...(v6.length === 0
      ? []
      : [
          // Routers are the namespace's affair.
          `ether type ip6 icmpv6 type { nd-router-advert, nd-redirect } ${deny}`,
          `ether type ip6 ip6 saddr { ${[...v6, "::", linkLocal(macAddress)].join(", ")} } ${pass}`,
        ]),
    deny,
    "}",
  ];
}

/** Without their prefixes, those of one family. */
function plain(addresses: readonly string[], mark: "." | ":"): string[] {
  return [...new Set(addresses.map((text) => text.replace(/\/.*/, "")).filter((text) => text.includes(mark)))].filter(
    (text) => mark === ":" || !text.includes(":"),
  );
}

/** The address that a kernel gives an interface by itself. */
export function linkLocal(macAddress: string): string {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = macAddress.split(":").map((pair) => Number.parseInt(pair, 16));
  const groups = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
  const words = [0, 2, 4, 6].map((at) => ((groups[at] ?? 0) * 256 + (groups[at + 1] ?? 0)).toString(16));
  return `fe80::${words.join(":")}`;
}
