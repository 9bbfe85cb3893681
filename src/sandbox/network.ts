/** A sandbox's network from its start to its end: planned, written down, made; plugged into the VM; told to the guest. */
import { isDeepStrictEqual } from "node:util";
import type { AgentMethod, AgentRequest, AgentResponse, CallOptions } from "../agent-client/index.ts";
import { BelljarError, type Log, messageChain, networkLimits } from "../base/index.ts";
import { guestPortPath } from "../hypervisor/index.ts";
import type { DeviceConfig, VmState } from "../hypervisor/interface.ts";
import {
  guestNameServers,
  guestNetwork,
  type NetworkState,
  type Networks,
  type Nic,
  nicsOf,
} from "../network/index.ts";
import type { SandboxSettings } from "./config.ts";
import type { HibernationState } from "./hibernation.ts";

interface NetworkedState {
  readonly settings: SandboxSettings;
  readonly hibernation?: HibernationState | undefined;
  readonly network?: NetworkState | undefined;
}

export interface NetworkedSandbox {
  readonly id: string;
  readonly state: NetworkedState;
  update(change: <S extends NetworkedState>(state: S) => S): Promise<void>;
}

/** What the settings ask for, if anything. On an error the sandbox's end removes what there is. */
export async function makeNetwork(
  sandbox: NetworkedSandbox,
  networks: Networks,
  runDir: string,
  signal: AbortSignal | undefined,
): Promise<NetworkState | undefined> {
  const { settings: own, hibernation } = sandbox.state;
  if (own.network === undefined) return undefined;
  // Whoever knows a port of it finds it there when it wakes.
  const settings = { ...own.network, ports: hibernation?.ports ?? own.network.ports };
  const hasFreePort = settings.ports.some(({ hostPort }) => hostPort === 0);
  for (let tries = 1; ; tries += 1) {
    const network = await networks.plan(sandbox.id, settings);
    await sandbox.update((state) => (isDeepStrictEqual(state.network, network) ? state : { ...state, network }));
    const onUplink = (made: NetworkState): Promise<void> => sandbox.update((state) => ({ ...state, network: made }));
    try {
      await networks.make(network, settings, { runDir, onUplink, signal });
      return network;
    } catch (error) {
      const isTaken = error instanceof BelljarError && error.reason === "PORT_IN_USE";
      if (!isTaken || !hasFreePort || tries >= networkLimits.portTries) throw error;
      // A free port was taken by somebody else before we had it.
      await networks.remove(network);
    }
  }
}

/** What cannot be removed now is left to the next owner of the root. */
export async function removeNetwork(
  { state, log }: { readonly state: NetworkedState; readonly log: Log },
  networks: Networks,
): Promise<void> {
  if (state.network === undefined) return;
  await networks.remove(state.network).catch((error: unknown) => {
    log.warn("a network could not be removed", { cause: messageChain(error).join(": ") });
  });
}

/** Whom the guest asks for names, and the names that it is told of others: of now, and of whenever it is asked. */
export interface NamesOfOthers {
  readonly nameServers: readonly string[];
  readonly hostLines: () => readonly string[];
}

export function namesOfOthers(sandbox: { readonly state: NetworkedState }, networks: Networks): NamesOfOthers {
  const { network } = sandbox.state;
  return {
    nameServers: network === undefined ? [] : guestNameServers(network),
    hostLines: () => {
      const { network: now } = sandbox.state;
      return now === undefined ? [] : networks.hostLines(now);
    },
  };
}

/** How the VM has it. */
export function devicesOf(network: NetworkState | undefined): readonly DeviceConfig[] {
  return network === undefined ? [] : nicsOf(network).map(deviceOf);
}

/** Those that the VM does not have: one that has waited for its sandbox has them. */
export function missingNics({ devices = [] }: VmState, network: NetworkState | undefined): readonly DeviceConfig[] {
  const ids = new Set(devices.map(({ id }) => id));
  return devicesOf(network).filter(({ id }) => !ids.has(id));
}

/** Those that may be plugged without the VM's state saying so. */
export function doubtfulDevices(network: NetworkState | undefined): readonly DeviceConfig[] {
  if (network?.mode !== "netns") return [];
  return devicesOf({ ...network, endpoints: network.endpoints.filter(({ pending }) => pending === true) });
}

export function deviceOf({ id, tap, macAddress }: Nic): DeviceConfig {
  return { kind: "net", id, tap, macAddress };
}

/**
 * The devices of a saved VM as its copy has them: its network devices, in their order, are those of the copy's network, wherever that
 * is. `later` are those that the saved VM had none for: they can be plugged once the copy's VM is there.
 * @throws BelljarError `CHECKPOINT_MISMATCH` when the saved VM has more
 */
export function placeNics(
  saved: readonly DeviceConfig[],
  network: NetworkState | undefined,
): { readonly devices: readonly DeviceConfig[]; readonly later: readonly DeviceConfig[] } {
  const wanted = network === undefined ? [] : nicsOf(network);
  const had = saved.filter(({ kind }) => kind === "net").sort((one, other) => one.id.localeCompare(other.id));
  if (had.length > wanted.length) {
    throw new BelljarError(
      "CHECKPOINT_MISMATCH",
      `the source had ${had.length} network interfaces, and the copy's network has ${wanted.length}`,
      { remedy: "Choose a network with as many interfaces, with `--network`." },
    );
  }
  const nicOf = new Map(had.map((device, index) => [device.id, wanted[index]] as const));
  const devices = saved.map((device) => {
    const nic = nicOf.get(device.id);
    if (device.kind !== "net" || nic === undefined) return device;
    return { ...device, id: nic.id, tap: nic.tap, macAddress: nic.macAddress };
  });
  return { devices, later: wanted.slice(had.length).map(deviceOf) };
}

export interface GuestHost {
  readonly state: { readonly network?: NetworkState | undefined };
  readonly machine: { readonly vm: { save(): VmState } };
  call<M extends AgentMethod>(method: M, request: AgentRequest<M>, options?: CallOptions): Promise<AgentResponse<M>>;
}

/** Tells the guest of the network that the state names; again after it was made anew. */
export async function configureGuest(
  host: GuestHost,
  signal: AbortSignal | undefined,
  { replaceRoutes = false }: { readonly replaceRoutes?: boolean } = {},
): Promise<void> {
  const words = guestWords(host);
  if (words !== undefined) await host.call("configureNetwork", { ...words, replaceRoutes }, { signal });
}

/** What the guest is told of its network; nothing without one. */
export function guestWords(host: Pick<GuestHost, "state" | "machine">): AgentRequest<"configureNetwork"> | undefined {
  const { network } = host.state;
  if (network === undefined) return undefined;
  const { interfaces, routes, neighbours } = guestNetwork(network);
  const ports = new Map((host.machine.vm.save().devices ?? []).map(({ id, port }) => [id, port]));
  const pathOf = (nic: string): readonly string[] => {
    const port = ports.get(nic);
    if (port === undefined) throw new BelljarError("NETWORK_FAILED", `the VM has no network device ${nic}`);
    return [...guestPortPath(port), "00.0"];
  };
  return {
    interfaces: interfaces.map(({ nic, addresses, ...each }) => ({
      ...each,
      addresses: [...addresses],
      pci: { path: [...pathOf(nic)] },
    })),
    routes: routes.map(({ gateway = "", ...route }) => ({ ...route, gateway })),
    neighbours: neighbours.map((each) => ({ ...each })),
  };
}
