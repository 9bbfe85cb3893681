/** Sandboxes in namespaces that somebody else has made: what of ours is put into them, and taken out again. */
import { randomBytes } from "node:crypto";
import { BelljarError, networkLimits, parseJson } from "../base/index.ts";
import type { NetworkSettings } from "./config.ts";
import { findNamespace, identifyNamespace, within } from "./given-namespace.ts";
import { givenRules, givenTable, tapOf } from "./given-rules.ts";
import { type FoundInterface, type FoundNetwork, nameServersOf, scanNamespace } from "./given-scan.ts";
import type { EndpointState, GivenNetworkState } from "./given-state.ts";
import { GUEST_INTERFACE } from "./guest-network.ts";
import { randomMac } from "./layout.ts";
import { shapingArguments } from "./rates.ts";

/** Decides what the sandbox gets of it; makes nothing. @throws BelljarError `NAMESPACE_INVALID`, `NETWORK_IN_USE`, ... */
export async function planGiven(
  sandboxId: string,
  { given, rates }: NetworkSettings,
  others: readonly GivenNetworkState[],
): Promise<GivenNetworkState> {
  if (given === undefined) throw new BelljarError("INTERNAL", "a network of somebody else's without a path");
  const namespaceId = await identifyNamespace(given.path);
  const found = await scanNamespace(given.path);
  const owner =
    others.find((other) => other.namespaceId === namespaceId && other.sandboxId !== sandboxId)?.sandboxId ??
    found.owners.find((id) => id !== sandboxId);
  if (owner !== undefined) {
    throw new BelljarError("NETWORK_IN_USE", `the namespace ${given.path} is another sandbox's already: ${owner}`, {
      facts: { path: given.path, sandbox: owner },
    });
  }
  const empty: GivenNetworkState = {
    mode: "netns",
    ...given,
    sandboxId,
    namespaceId,
    endpoints: [],
    routes: [],
    neighbours: [],
    nameServers: await nameServersOf(given.path),
    ports: [],
    rates,
  };
  if (given.model === "none") return empty;
  return withFound(empty, found);
}

/** What the state is to be when the namespace is as it was found: interfaces that stay keep their numbers and names. */
export function withFound(network: GivenNetworkState, found: FoundNetwork): GivenNetworkState {
  const kept = network.endpoints.flatMap((endpoint) => {
    const now = found.interfaces.find(({ source, kind }) => source === endpoint.source && kind === endpoint.kind);
    return now === undefined ? [] : [refreshed(endpoint, now)];
  });
  const endpoints = [...kept];
  // Those that were taken from the sandbox stay so while they are there.
  const ignored = (network.ignored ?? []).filter((each) => found.interfaces.some(({ source }) => source === each));
  for (const each of found.interfaces) {
    if (ignored.includes(each.source) || endpoints.some(({ source }) => source === each.source)) continue;
    endpoints.push(newEndpoint(each, endpoints));
  }
  const nameOf = (source: string): string => endpoints.find((each) => each.source === source)?.name ?? "";
  const named = <T extends { readonly interfaceName: string }>(list: readonly T[]): T[] =>
    list
      .map((each) => ({ ...each, interfaceName: nameOf(each.interfaceName) }))
      .filter(({ interfaceName }) => interfaceName !== "");
  if (network.rates?.inBytesPerSecond !== undefined && endpoints.some(({ direct }) => direct === true)) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      "what comes to the sandbox by a tap of the namespace cannot be slowed down",
      {
        remedy: "Limit what goes out only, or use a veth.",
      },
    );
  }
  return {
    ...network,
    endpoints,
    ignored: ignored.length === 0 ? undefined : ignored,
    routes: network.ownRoutes === true ? network.routes : named(found.routes),
    neighbours: named(found.neighbours),
  };
}

/** One that the VM does not have yet. @throws BelljarError `NETWORK_UNAVAILABLE` when there are too many */
export function newEndpoint(found: FoundInterface, taken: readonly EndpointState[]): EndpointState {
  const indexes = Array.from({ length: networkLimits.interfacesMax }, (_, index) => index);
  const index = indexes.find((each) => !taken.some((other) => other.index === each));
  if (index === undefined) {
    throw new BelljarError("NETWORK_UNAVAILABLE", "the sandbox has as many interfaces as it can have", {
      facts: { max: networkLimits.interfacesMax },
    });
  }
  const names = [found.source, ...indexes.map((each) => `eth${each}`)];
  const name = names.find((each) => GUEST_INTERFACE.test(each) && !taken.some((other) => other.name === each));
  const { source, kind, mtu, addresses, isFree } = found;
  return {
    index,
    source,
    kind,
    name: name ?? `eth${index}`,
    // At the other end of a tap the namespace is itself, with the tap's address.
    macAddress: isFree ? randomMac(randomBytes(5)) : found.macAddress,
    mtu,
    addresses,
    ...(isFree ? { direct: true } : {}),
  };
}

/** The VM's hold on a tap gives it a carrier: that it is free no more says nothing. */
function refreshed(endpoint: EndpointState, { macAddress, mtu, addresses }: FoundInterface): EndpointState {
  const now = { ...endpoint, mtu, addresses };
  return endpoint.direct === true ? now : { ...now, macAddress };
}

/** Our taps and our table, as the state says; what is there already stays. */
export async function makeGiven(network: GivenNetworkState, signal: AbortSignal | undefined): Promise<void> {
  const path = await findNamespace(network.path, network.namespaceId);
  if (path === undefined) throw vanished(network);
  const { inBytesPerSecond: rate } = network.rates ?? {};
  const lines = network.endpoints
    .filter(({ pending }) => pending !== true)
    .flatMap((endpoint) => {
      const tap = tapOf(network.sandboxId, endpoint);
      if (endpoint.direct === true) return [];
      const shape = rate === undefined ? [] : [`tc ${shapingArguments(tap, rate).join(" ")}`];
      return [
        `ip link show dev ${tap} >/dev/null 2>&1 || ip tuntap add ${tap} mode tap`,
        // The namespace itself has nothing to say on it.
        `echo 1 >/proc/sys/net/ipv6/conf/${tap}/disable_ipv6`,
        `ip link set ${tap} mtu ${endpoint.mtu} up`,
        ...shape,
      ];
    });
  const script = [...lines, "nft -f - <<'RULES'", givenRules(network, await deniedGiven(network)), "RULES", ""];
  await within(path, ["sh", "-eu"], { input: Buffer.from(script.join("\n")), signal });
}

/** What is not there is success. */
export async function removeGiven(network: GivenNetworkState): Promise<void> {
  const path = await findNamespace(network.path, network.namespaceId);
  if (path === undefined) return;
  const table = givenTable(network.sandboxId);
  const taps = network.endpoints.filter(({ direct }) => direct !== true);
  const script = [
    `nft -f - <<'RULES'\ntable netdev ${table} { }\ndelete table netdev ${table}\nRULES`,
    ...taps.map((endpoint) => {
      const tap = tapOf(network.sandboxId, endpoint);
      return `ip link delete ${tap} 2>/dev/null || ! ip link show dev ${tap} >/dev/null 2>&1`;
    }),
    "",
  ];
  await within(path, ["sh", "-eu"], { input: Buffer.from(script.join("\n")) });
}

/** What of ours belongs to no endpoint of the state any more, or to one that is being unplugged. */
export async function removeEndpoint(network: GivenNetworkState, endpoint: EndpointState): Promise<void> {
  const path = await findNamespace(network.path, network.namespaceId);
  if (path === undefined || endpoint.direct === true) return;
  const tap = tapOf(network.sandboxId, endpoint);
  const script = `ip link delete ${tap} 2>/dev/null || ! ip link show dev ${tap} >/dev/null 2>&1\n`;
  await within(path, ["sh", "-eu"], { input: Buffer.from(script) });
}

export async function scanGiven(network: GivenNetworkState, signal?: AbortSignal): Promise<FoundNetwork> {
  const path = await findNamespace(network.path, network.namespaceId);
  if (path === undefined) throw vanished(network);
  return await scanNamespace(path, signal);
}

/** Packets of the guest that were dropped so far. */
export async function deniedGiven(network: GivenNetworkState): Promise<number> {
  const path = await findNamespace(network.path, network.namespaceId);
  if (path === undefined) return 0;
  // Listed as a whole: there is no such table before the first time.
  const text = await within(path, [
    "nft",
    "-j",
    "list",
    "counters",
    "table",
    "netdev",
    givenTable(network.sandboxId),
  ]).catch((error: unknown) => {
    if (error instanceof BelljarError && /no such file/i.test(error.message)) return '{"nftables":[]}';
    throw error;
  });
  const counts = parseJson(text, "nft", "NETWORK_FAILED")
    .field("nftables")
    .array((item) => item.field("counter").optional((counter) => counter.field("packets").integer({ min: 0 })));
  return counts.find((count) => count !== undefined) ?? 0;
}

function vanished({ path }: GivenNetworkState): BelljarError {
  return new BelljarError("NAMESPACE_INVALID", `the network namespace of ${path} is gone`, { facts: { path } });
}
