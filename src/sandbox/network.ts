/** A sandbox's network from its start to its end: planned, written down, made; plugged into the VM; told to the guest. */
import type { AgentMethod, AgentRequest, AgentResponse, CallOptions } from "../agent-client/index.ts";
import { BelljarError, networkLimits } from "../base/index.ts";
import { guestPortPath } from "../hypervisor/index.ts";
import type { DeviceConfig, VmState } from "../hypervisor/interface.ts";
import { guestNetwork, type NetworkState, type Networks, NIC, TAP } from "../network/index.ts";
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
    await sandbox.update((state) => ({ ...state, network }));
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

/** How the VM has it. */
export function nicOf({ macAddress }: NetworkState): DeviceConfig {
  return { kind: "net", id: NIC, tap: TAP, macAddress };
}

export interface GuestHost {
  readonly state: { readonly network?: NetworkState | undefined };
  readonly machine: { readonly vm: { save(): VmState } };
  call<M extends AgentMethod>(method: M, request: AgentRequest<M>, options?: CallOptions): Promise<AgentResponse<M>>;
}

/** Tells the guest of the network that the state names; again after it was made anew. */
export async function configureGuest(host: GuestHost, signal: AbortSignal | undefined): Promise<void> {
  const { network } = host.state;
  if (network === undefined) return;
  const { interfaces, routes, neighbours } = guestNetwork(network);
  const port = host.machine.vm.save().devices?.find(({ id }) => id === NIC)?.port;
  if (port === undefined) throw new BelljarError("NETWORK_FAILED", "the VM has no network device");
  const path = [...guestPortPath(port), "00.0"];
  await host.call(
    "configureNetwork",
    {
      interfaces: interfaces.map((each) => ({ ...each, addresses: [...each.addresses], pci: { path } })),
      routes: routes.map(({ gateway = "", ...route }) => ({ ...route, gateway })),
      neighbours: neighbours.map((each) => ({ ...each })),
    },
    { signal },
  );
}
