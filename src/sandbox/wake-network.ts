/**
 * What the guest's wake program does to the network of a copy, so that nothing of it runs where its source is: composed of what the source
 * was told, what its guest says that it has, and what the copy is to be told. An interface is known by the name and the hardware address
 * that the source was told; whatever is not as plain as that is left to the copy's agent.
 */
import {
  type GuestInterface,
  type GuestNetwork,
  type GuestRoute,
  guestNetwork,
  linkLocal,
  type NetworkState,
  nicsOf,
} from "../network/index.ts";
import {
  addressRequest,
  linkRequest,
  neighbourRequest,
  type PlannedInterface,
  routeRequest,
  type WakeStep,
} from "../protocol/index.ts";

/** An interface as the guest has it, as the source was told of it, and as the copy is to have it. */
interface Change {
  readonly present: PlannedInterface;
  readonly before: GuestInterface;
  readonly after: GuestInterface;
}

interface Requests {
  /** What they remove may be gone. */
  readonly gone: readonly Uint8Array[];
  readonly set: readonly Uint8Array[];
}

type Family = "ipv4" | "ipv6";

/** None when the guest need be told nothing; undefined when its agent has to be. */
export function networkSteps(
  present: readonly PlannedInterface[] | undefined,
  source: NetworkState | undefined,
  own: NetworkState | undefined,
): readonly WakeStep[] | undefined {
  const [before, after] = [source && guestNetwork(source), own && guestNetwork(own)];
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  if (source === undefined || own === undefined || before === undefined || after === undefined) return undefined;
  if (!isPlugged(source, before) || !isPlugged(own, after)) return undefined;
  const changes = changesOf(present ?? [], before, after);
  if (changes === undefined) return undefined;
  const requests = changes.map((change) =>
    requestsFor(change, ofInterface(before, change), ofInterface(after, change)),
  );
  const steps = [
    { kind: "network", mayBeGone: true, requests: requests.flatMap(({ gone }) => gone) },
    { kind: "network", mayBeGone: false, requests: requests.flatMap(({ set }) => set) },
  ] as const;
  return [...steps.filter((step) => step.requests.length > 0), ...disconnections(before, after)];
}

/** Connections to the outside are the source's: nothing comes on those of the copy, and whoever has them would wait for long. */
function disconnections(before: GuestNetwork, after: GuestNetwork): readonly WakeStep[] {
  const [had, has] = [before, after].map(
    ({ interfaces }) =>
      new Set(interfaces.flatMap(({ addresses }) => addresses.map((range) => range.replace(/\/.*/, "")))),
  );
  return [...(had ?? [])].map((address) => ({ kind: "disconnect", address, keepInside: has?.has(address) === true }));
}

/** None of its interfaces is just being plugged or unplugged. */
function isPlugged(network: NetworkState, { interfaces }: GuestNetwork): boolean {
  return nicsOf(network).length === interfaces.length;
}

/** The devices of the source are those of its copy, in their order. Undefined unless the guest has each where it was told to. */
function changesOf(
  present: readonly PlannedInterface[],
  source: GuestNetwork,
  own: GuestNetwork,
): readonly Change[] | undefined {
  const [olds, news] = [inOrder(source), inOrder(own)];
  const changes = news.flatMap((after, at): Change[] => {
    const before = olds[at];
    if (before?.name !== after.name) return [];
    const found = present.filter(({ name, macAddress }) => name === before.name && macAddress === before.macAddress);
    return found.map((each) => ({ present: each, before, after }));
  });
  const names = new Set(changes.map(({ after }) => after.name));
  if ([olds, news, changes].some(({ length }) => length !== names.size)) return undefined;
  const named = [source, own].flatMap(({ routes, neighbours }) => [...routes, ...neighbours]);
  return named.every(({ interfaceName }) => names.has(interfaceName)) ? changes : undefined;
}

/** As the devices of a VM are handed to its copy. */
function inOrder({ interfaces }: GuestNetwork): readonly GuestInterface[] {
  return interfaces.toSorted((one, other) => one.nic.localeCompare(other.nic));
}

type Ways = Pick<GuestNetwork, "routes" | "neighbours">;

function ofInterface({ routes, neighbours }: GuestNetwork, { after: { name } }: Change): Ways {
  return {
    routes: routes.filter(({ interfaceName }) => interfaceName === name),
    neighbours: neighbours.filter(({ interfaceName }) => interfaceName === name),
  };
}

/** The ways come after the addresses that they lead from: without those the kernel refuses them. */
function requestsFor(change: Change, source: Ways, own: Ways): Requests {
  const { index } = change.present;
  const [ipv4, ipv6] = [addressRequests(change, "ipv4"), addressRequests(change, "ipv6")];
  // With the last address of a family go its routes; those of one that stays, where it does, may be the workload's by now.
  const moved = new Set([...(isNone(ipv4) ? [] : ["ipv4"]), ...(isNone(ipv6) ? [] : ["ipv6"])]);
  const all = [
    linkRequests(change),
    ipv4,
    ipv6,
    routeRequests(index, source, own, (route) => moved.has(familyOfRoute(route))),
    neighbourRequests(index, source, own),
  ];
  return { gone: all.flatMap(({ gone }) => gone), set: all.flatMap(({ set }) => set) };
}

function isNone({ gone, set }: Requests): boolean {
  return gone.length + set.length === 0;
}

function linkRequests({ present, after }: Change): Requests {
  const macAddress = after.macAddress === present.macAddress ? undefined : after.macAddress;
  const mtu = after.mtu === present.mtu ? undefined : after.mtu;
  const isSame = macAddress === undefined && mtu === undefined;
  return { gone: [], set: isSame ? [] : [linkRequest({ index: present.index, macAddress, mtu })] };
}

/** All of a family or none: with the first one of a range the kernel takes the others of it away. */
function addressRequests({ present, before, after }: Change, family: Family): Requests {
  const { index } = present;
  const isOfFamily = (range: string): boolean => familyOf(range) === family;
  const request = (address: string): Buffer => addressRequest("set", { index, address });
  const had = present.addresses.filter(isOfFamily);
  // What the kernel has made of the hardware address follows it; others of the link are the guest's own affair.
  const old = request(`${linkLocal(before.macAddress)}/64`);
  const ofLink = had
    .filter((range) => range.startsWith("fe80:"))
    .map((range) => (request(range).equals(old) ? `${linkLocal(after.macAddress)}/64` : range));
  const set = [...after.addresses.filter(isOfFamily), ...ofLink].map(request);
  // There is more than one way to write an address.
  const [one, other] = [had.map(request), set].map((list) => new Set(list.map((each) => each.toString("hex"))));
  if (one?.symmetricDifference(other ?? new Set()).size === 0) return { gone: [], set: [] };
  return { gone: had.map((address) => addressRequest("remove", { index, address })), set };
}

function routeRequests(index: number, source: Ways, own: Ways, isMoved: (route: GuestRoute) => boolean): Requests {
  const without = (routes: readonly GuestRoute[], others: readonly GuestRoute[]): readonly GuestRoute[] =>
    routes.filter((route) => !others.some((each) => isSameRoute(each, route)));
  const stale = without(source.routes, own.routes);
  const fresh = without(own.routes, source.routes);
  const set = own.routes.filter((route) => isMoved(route) || fresh.includes(route));
  return {
    gone: stale.map((route) => routeRequest("remove", { index, ...route })),
    set: set.map((route) => routeRequest("set", { index, ...route })),
  };
}

function isSameRoute(one: GuestRoute, other: GuestRoute): boolean {
  return one.destination === other.destination && one.gateway === other.gateway;
}

/** All of them: with its hardware address an interface loses them. */
function neighbourRequests(index: number, source: Ways, own: Ways): Requests {
  const stale = source.neighbours.filter(({ address }) => !own.neighbours.some((each) => each.address === address));
  return {
    gone: stale.map((neighbour) => neighbourRequest("remove", { index, ...neighbour })),
    set: own.neighbours.map((neighbour) => neighbourRequest("set", { index, ...neighbour })),
  };
}

function familyOf(text: string): Family {
  return text.includes(":") ? "ipv6" : "ipv4";
}

/** `default` says nothing of its family. */
function familyOfRoute({ destination, gateway = "" }: GuestRoute): Family {
  return familyOf(destination + gateway);
}
