/**
 * Changes of a running sandbox's network: interfaces that come and go with those of a given namespace, addresses and routes that
 * follow it, and routes that a caller sets. An interface is in the state before anything of it is made and until nothing of it is
 * left, marked as `pending`; whoever finds such a mark takes the interface away (`settleInterfaces`).
 */
import { BelljarError, type Log, messageChain, networkLimits } from "../base/index.ts";
import type { Vm } from "../hypervisor/interface.ts";
import {
  checkGuestRoutes,
  type EndpointState,
  type FoundNetwork,
  type GivenNetworkState,
  type GuestRoute,
  guestNetwork,
  type NetworkState,
  type Networks,
  newEndpoint,
  nicName,
  nicsOf,
  withFound,
} from "../network/index.ts";
import { configureGuest, deviceOf, type GuestHost } from "./network.ts";

export interface NetworkHost extends GuestHost {
  readonly id: string;
  readonly networks: Networks;
  readonly log: Log;
  readonly machine: {
    readonly vm: Pick<Vm, "plugDevice" | "save" | "unplugDevice">;
    whileAlive<T>(work: Promise<T>): Promise<T>;
  };
  setNetwork(network: NetworkState): Promise<void>;
}

/** What the guest says that it has, whoever has set it. */
export interface PresentNetwork {
  readonly interfaces: readonly PresentInterface[];
  readonly routes: readonly GuestRoute[];
}

export interface PresentInterface {
  readonly name: string;
  readonly macAddress: string;
  readonly mtu: number;
  readonly up: boolean;
  readonly addresses: readonly string[];
  /** In the given namespace. */
  readonly source?: string | undefined;
}

/** Of the guest, which says what it likes: bounded, and nothing but text. */
export async function readNetwork(host: NetworkHost, signal: AbortSignal | undefined): Promise<PresentNetwork> {
  const { interfaces, routes } = await host.call("getNetwork", {}, { signal });
  const clean = (text: string): string => text.replaceAll(/[^ -~]/g, "?").slice(0, 64);
  const sources = new Map(endpointsOf(host.state.network).map(({ name, source }) => [name, source]));
  return {
    interfaces: interfaces.slice(0, networkLimits.interfacesMax * 2).map((each) => ({
      name: clean(each.name),
      macAddress: clean(each.macAddress),
      mtu: each.mtu,
      up: each.up,
      addresses: each.addresses.slice(0, networkLimits.addressesMax * 2).map(clean),
      source: sources.get(each.name),
    })),
    routes: routes.slice(0, networkLimits.routesMax).map(({ interfaceName, destination, gateway }) => ({
      interfaceName: clean(interfaceName),
      destination: clean(destination),
      gateway: gateway === "" ? undefined : clean(gateway),
    })),
  };
}

/** Gives the VM an interface that its namespace has. @throws BelljarError `INTERFACE_NOT_FOUND`, `INVALID_ARGUMENT` */
export async function addInterface(
  host: NetworkHost,
  source: string,
  signal: AbortSignal | undefined,
): Promise<EndpointState> {
  const network = givenNetwork(host);
  const present = network.endpoints.find((each) => each.source === source);
  if (present !== undefined) return present;
  const found = await host.networks.scan(network, signal);
  const wanted = found.interfaces.find((each) => each.source === source);
  if (wanted === undefined) throw notFound(`the namespace ${network.path} has no interface ${source} that is up`);
  const endpoint = newEndpoint(wanted, network.endpoints);
  await plugInterface(host, endpoint, signal);
  const { ignored = [], ...plugged } = givenNetwork(host);
  await host.setNetwork({ ...plugged, ignored: ignored.filter((each) => each !== source) });
  // Its routes come with it.
  await follow(host, onlyOf(givenNetwork(host), found), signal);
  return endpoint;
}

/** Named as in the guest or as in the namespace. One that the namespace still has is left alone there. */
export async function removeInterface(host: NetworkHost, name: string, signal: AbortSignal | undefined): Promise<void> {
  const { endpoints } = givenNetwork(host);
  const endpoint = endpoints.find((each) => each.name === name) ?? endpoints.find((each) => each.source === name);
  if (endpoint === undefined) throw notFound(`sandbox ${host.id} has no interface ${name}`);
  await unplugInterface(host, endpoint);
  const network = givenNetwork(host);
  const ignored = [...(network.ignored ?? []), endpoint.source].slice(-networkLimits.interfacesMax);
  await follow(host, { ...network, ignored }, signal);
}

/** Brings sandbox and namespace together, whatever has changed there. Answers whether anything had. */
export async function refreshNetwork(host: NetworkHost, signal: AbortSignal | undefined): Promise<boolean> {
  const before = givenNetwork(host);
  if (before.model === "none") return false;
  const found = await host.networks.scan(before, signal);
  const after = withFound(before, found);
  const isIn = (list: readonly EndpointState[], { source, kind }: EndpointState): boolean =>
    list.some((each) => each.source === source && each.kind === kind);
  for (const endpoint of before.endpoints.filter((each) => !isIn(after.endpoints, each))) {
    await unplugInterface(host, endpoint);
  }
  for (const endpoint of after.endpoints.filter((each) => !isIn(before.endpoints, each))) {
    await plugInterface(host, endpoint, signal);
  }
  const now = givenNetwork(host);
  const wanted = withFound(now, found);
  const hasChanged = JSON.stringify(before) !== JSON.stringify(wanted);
  if (hasChanged) await follow(host, wanted, signal);
  return hasChanged;
}

/** In place of those that there are; the ranges of the interfaces' own addresses stay. @throws BelljarError `INVALID_ARGUMENT` */
export async function setRoutes(
  host: NetworkHost,
  routes: readonly GuestRoute[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const { network } = host.state;
  if (network === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", `sandbox ${host.id} has no network`, {
      remedy: "Give it one, such as `--network bridge`.",
    });
  }
  const names = guestNetwork(network).interfaces.map(({ name }) => name);
  const checked = checkGuestRoutes(routes, names);
  const wanted: NetworkState =
    network.mode === "netns" ? { ...network, routes: checked, ownRoutes: true } : { ...network, routes: checked };
  await host.setNetwork(wanted);
  try {
    await configureGuest(host, signal, { replaceRoutes: true });
  } catch (error) {
    // The guest's kernel has refused one: as before.
    await host.setNetwork(network);
    await configureGuest(host, undefined, { replaceRoutes: true }).catch((undoing: unknown) => {
      host.log.warn("the guest's former routes were not set again", { cause: messageChain(undoing).join(": ") });
    });
    throw error;
  }
}

/** Takes away what a former owner was just plugging or unplugging, and tells the guest what that may not have come to tell. */
export async function settleInterfaces(host: NetworkHost, signal: AbortSignal | undefined): Promise<void> {
  if (host.state.network?.mode !== "netns") return;
  const half = endpointsOf(host.state.network).filter(({ pending }) => pending === true);
  for (const endpoint of half) await unplugInterface(host, endpoint);
  await follow(host, givenNetwork(host), signal);
}

async function plugInterface(
  host: NetworkHost,
  endpoint: EndpointState,
  signal: AbortSignal | undefined,
): Promise<void> {
  const before = givenNetwork(host);
  const others = before.endpoints.filter(({ index }) => index !== endpoint.index);
  await host.setNetwork({ ...before, endpoints: [...others, { ...endpoint, pending: true }] });
  try {
    const made: GivenNetworkState = { ...before, endpoints: [...others, endpoint] };
    await host.networks.refit(made, signal);
    const nic = nicsOf(made).find(({ id }) => id === nicName(endpoint.index));
    if (nic === undefined) throw new BelljarError("INTERNAL", "an interface without a device");
    await host.machine.whileAlive(host.machine.vm.plugDevice(deviceOf(nic)));
    await host.setNetwork(made);
    await configureGuest(host, signal);
  } catch (error) {
    await unplugInterface(host, endpoint).catch((undoing: unknown) => {
      host.log.warn("an interface is left half plugged", { cause: messageChain(undoing).join(": ") });
    });
    throw error;
  }
}

/** What is not there is success. */
async function unplugInterface(host: NetworkHost, endpoint: EndpointState): Promise<void> {
  const before = givenNetwork(host);
  const others = before.endpoints.filter(({ index }) => index !== endpoint.index);
  await host.setNetwork({ ...before, endpoints: [...others, { ...endpoint, pending: true }] });
  const id = nicName(endpoint.index);
  const { vm } = host.machine;
  if ((vm.save().devices ?? []).some((device) => device.id === id)) await host.machine.whileAlive(vm.unplugDevice(id));
  const without = { ...before, endpoints: others };
  await host.networks.refit(without);
  await host.networks.removeEndpoint(without, endpoint);
  await host.setNetwork(without);
}

/** The namespace's side first: what the guest is told must be let through. */
async function follow(host: NetworkHost, network: GivenNetworkState, signal: AbortSignal | undefined): Promise<void> {
  await host.setNetwork(network);
  await host.networks.refit(network, signal);
  await configureGuest(host, signal, { replaceRoutes: true });
}

/** As it was found, as far as the sandbox has its interfaces. */
function onlyOf(network: GivenNetworkState, found: FoundNetwork): GivenNetworkState {
  const has = (source: string): boolean => network.endpoints.some((each) => each.source === source);
  return withFound(network, {
    ...found,
    interfaces: found.interfaces.filter(({ source }) => has(source)),
    routes: found.routes.filter(({ interfaceName }) => has(interfaceName)),
    neighbours: found.neighbours.filter(({ interfaceName }) => has(interfaceName)),
  });
}

function endpointsOf(network: NetworkState | undefined): readonly EndpointState[] {
  return network?.mode === "netns" ? network.endpoints : [];
}

function givenNetwork({ id, state }: NetworkHost): GivenNetworkState {
  if (state.network?.mode === "netns") return state.network;
  throw new BelljarError("INVALID_ARGUMENT", `sandbox ${id} is in no network namespace of somebody else's`, {
    remedy: "Interfaces come and go in a sandbox that was started with `--network netns:PATH`.",
  });
}

function notFound(message: string): BelljarError {
  return new BelljarError("INTERFACE_NOT_FOUND", message);
}
