/**
 * The networks of one root's sandboxes on this host. `plan` decides and makes nothing; its answer is written down; then `make` makes
 * it, and `remove` undoes it, as often as it is asked, for whoever has the state. What no state speaks of, `sweep` finds by its name.
 */
import { randomBytes } from "node:crypto";
import { BelljarError, isId, type ProcessIdentity, parseJson } from "../base/index.ts";
import { type Disk, Turns } from "../store/index.ts";
import { BridgeNetworks } from "./bridge-networks.ts";
import type { NetworkSettings } from "./config.ts";
import { hostAddresses, hostNameServer, lookUpName } from "./host-facts.ts";
import { choosePorts } from "./host-ports.ts";
import { MTU, USER_ADDRESS } from "./layout.ts";
import {
  fillNamespace,
  inNamespace,
  listNamespaces,
  makeNamespace,
  namespacePrefix,
  removeNamespace,
} from "./namespace.ts";
import { resolvePolicy } from "./policy.ts";
import { DENIED, namespaceRules, TABLE } from "./rules.ts";
import { endSlirp, findSlirp, startSlirp } from "./slirp.ts";
import type { NetworkState } from "./state.ts";
import { readTraffic, type Traffic } from "./traffic.ts";

export interface MakeOptions {
  /** Of the sandbox: for the files of a program behind its network. */
  readonly runDir: string;
  /** Told of that program as soon as there is one. */
  readonly onUplink: (state: NetworkState) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

export interface NetworksDeps {
  readonly rootDir: string;
  readonly disk?: Disk | undefined;
}

export interface Networks {
  /** One after the other: what is planned is taken. @throws BelljarError `PORT_IN_USE` */
  plan(id: string, settings: NetworkSettings): Promise<NetworkState>;
  /** What a former owner has planned is taken too. */
  adopt(state: NetworkState): void;
  /** On an error the caller removes what there is. @throws BelljarError `NETWORK_UNAVAILABLE`, `NETWORK_FAILED`, `PORT_IN_USE` */
  make(state: NetworkState, settings: NetworkSettings, options: MakeOptions): Promise<void>;
  /** After the VMM has ended. What is not there is success. */
  remove(state: NetworkState): Promise<void>;
  /** Packets of the guest that were dropped or refused so far. @throws BelljarError `NETWORK_FAILED` */
  denied(state: NetworkState): Promise<number>;
  /** What goes over it just now. @param vmmPid the process that has the guest's end of it */
  traffic(state: NetworkState, vmmPid: number): Promise<Traffic>;
  /** Removes what belongs to none of these sandboxes; answers whose it was. */
  sweep(ids: ReadonlySet<string>): Promise<readonly string[]>;
}

export function openNetworks({ rootDir, disk }: NetworksDeps): Networks {
  const prefix = namespacePrefix(rootDir);
  const idOf = (namespace: string): string => namespace.slice(prefix.length);
  const turns = new Turns("the networks of this root");
  /** By namespace. */
  const planned = new Map<string, NetworkState>();
  const bridge = new BridgeNetworks(prefix.slice("belljar-".length, -1), rootDir, disk);

  const remove = async (namespace: string, uplink: NetworkState["uplink"]): Promise<void> => {
    const programs = uplink === undefined ? await findSlirp(namespace) : [uplink];
    for (const program of programs) await endSlirp(program);
    await removeNamespace(namespace);
  };

  return {
    plan: async (id, settings) => {
      const isBridge = settings.mode === "bridge";
      const { allow } = await resolvePolicy(settings.policy, lookUpName, []);
      const nameServer = await hostNameServer();
      return await turns.take(async () => {
        const taken = [...planned.values()].flatMap(({ ports }) => ports);
        const state: NetworkState = {
          mode: settings.mode,
          namespace: prefix + id,
          macAddress: randomMac(),
          address: isBridge ? await bridge.address(planned.values()) : USER_ADDRESS,
          mtu: MTU,
          nameServer,
          ports: await choosePorts(settings.ports, taken),
          ...(isBridge ? { allowed: allow.flatMap(({ ranges }) => ranges) } : {}),
        };
        planned.set(state.namespace, state);
        return state;
      });
    },

    adopt: (state) => void planned.set(state.namespace, state),

    make: async (state, settings, { runDir, onUplink, signal }) => {
      const destinations = await resolvePolicy(settings.policy, lookUpName, hostAddresses());
      await makeNamespace(state.namespace, signal);
      await fillNamespace(state, namespaceRules(state, destinations), signal);
      if (state.mode === "bridge") {
        await turns.take(() => bridge.make(idOf(state.namespace), state, planned.values(), signal));
        return;
      }
      const onSpawn = (uplink: ProcessIdentity): Promise<void> => onUplink({ ...state, uplink });
      await startSlirp(state.namespace, state.ports, runDir, onSpawn, signal);
    },

    remove: async ({ mode, namespace, uplink }) => {
      if (mode === "user") await remove(namespace, uplink);
      else await removeNamespace(namespace);
      await turns.take(async () => {
        planned.delete(namespace);
        if (mode === "bridge") await bridge.remove(idOf(namespace), planned.values());
      });
    },

    denied: async ({ namespace }) => {
      const text = await inNamespace(namespace, ["nft", "-j", "list", "counter", "inet", TABLE, DENIED]);
      const counts = parseJson(text, "nft", "NETWORK_FAILED")
        .field("nftables")
        .array((item) => item.field("counter").optional((counter) => counter.field("packets").integer({ min: 0 })));
      return counts.find((count) => count !== undefined) ?? 0;
    },

    traffic: readTraffic,

    sweep: (ids) =>
      turns.take(async () => {
        const removed = new Set<string>();
        for (const name of await listNamespaces(prefix)) {
          if (!isId(idOf(name)) || ids.has(idOf(name))) continue;
          await remove(name, undefined);
          removed.add(idOf(name));
        }
        for (const id of await bridge.settle(ids, planned.values())) removed.add(id);
        return [...removed];
      }),
  };
}

/** For those who have none to give. */
export const noNetworks: Networks = {
  plan: async () => {
    throw new BelljarError("NETWORK_UNAVAILABLE", "this runtime has no networks");
  },
  adopt: () => {},
  make: async () => {},
  remove: async () => {},
  denied: async () => 0,
  traffic: async () => ({ packets: 0, connections: 0 }),
  sweep: async () => [],
};

/** Of those that anybody may give: the second lowest bit of the first byte is set. */
function randomMac(): string {
  return [0x02, ...randomBytes(5)].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
