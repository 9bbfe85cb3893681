/**
 * The networks of one root's sandboxes on this host. `plan` decides and makes nothing; its answer is written down; then `make` makes
 * it, and `remove` undoes it, as often as it is asked, for whoever has the state. What no state speaks of, `sweep` finds by its name.
 */
import { randomBytes } from "node:crypto";
import { stat } from "node:fs/promises";
import { BelljarError, isId, type ProcessIdentity, parseJson, throwIfAborted } from "../base/index.ts";
import { type Disk, Turns } from "../store/index.ts";
import { AheadNetworks } from "./ahead.ts";
import { BridgeNetworks } from "./bridge-networks.ts";
import type { ExpectedNetwork, NetworkSettings } from "./config.ts";
import { deniedGiven, makeGiven, planGiven, removeEndpoint, removeGiven, scanGiven } from "./given-networks.ts";
import type { FoundNetwork } from "./given-scan.ts";
import type { EndpointState, GivenNetworkState } from "./given-state.ts";
import { type NetworkWatch, watchGiven } from "./given-watch.ts";
import { networkPath } from "./guest.ts";
import { hostAddresses, hostNameServer, lookUpName } from "./host-facts.ts";
import { choosePorts, likelyPorts } from "./host-ports.ts";
import { MTU, randomMac, TAP, UPLINK, USER_ADDRESS } from "./layout.ts";
import { linkedPeers } from "./links.ts";
import {
  emptyLines,
  inNamespace,
  listNamespaces,
  namespacePrefix,
  openLines,
  placeLines,
  removeNamespace,
  ruleLines,
  runLines,
} from "./namespace.ts";
import { hasNames, resolvePolicy } from "./policy.ts";
import { type PreparedNetwork, PreparedNetworks } from "./prepared-networks.ts";
import { type Rates, shapingArguments } from "./rates.ts";
import { readSets, renewedSets } from "./renewed-names.ts";
import { addressSets, DENIED, namespaceRules, replacing, TABLE } from "./rules.ts";
import { endSlirp, findSlirp, openSlirp } from "./slirp.ts";
import type { NetworkState, OwnNetworkState } from "./state.ts";
import { Together } from "./together.ts";
import { readTraffic, type Traffic } from "./traffic.ts";

export interface MakeOptions {
  /** Of the sandbox: for the files of a program behind its network. */
  readonly runDir: string;
  /** Told of that program as soon as there is one. */
  readonly onUplink: (state: OwnNetworkState) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

interface Opened {
  readonly state: OwnNetworkState;
  /** Of its namespace. */
  readonly rules: string;
  /** Those that its namespace has. */
  readonly loaded: string | undefined;
}

export interface NetworksDeps {
  readonly rootDir: string;
  readonly disk?: Disk | undefined;
}

export interface Networks {
  /** One after the other: what is planned is taken. @throws BelljarError `PORT_IN_USE`, `NAMESPACE_INVALID`, `NETWORK_IN_USE` */
  plan(id: string, settings: NetworkSettings): Promise<NetworkState>;
  /** What a former owner has planned is taken too. */
  adopt(state: NetworkState): void;
  /**
   * A place for the VM of a sandbox that is not there yet, from which nothing gets out; `plan` for this id takes it. The sandbox may ask
   * for another network of the same kind than was expected.
   * @param runDir of that sandbox
   * @throws BelljarError what `make` throws; nothing is left then
   */
  prepare(id: string, expected: ExpectedNetwork, runDir: string, signal: AbortSignal): Promise<OwnNetworkState>;
  /**
   * Begins to make the networks of sandboxes that are about to be, as far as their places were prepared; `plan` and `make` with the same
   * settings find it done, and tell what went wrong.
   */
  openAhead(ids: readonly string[], settings: NetworkSettings): void;
  /** What `plan` with these settings would find done; undefined where nothing was begun. @throws BelljarError what `plan` throws */
  plannedAhead(id: string, settings: NetworkSettings): Promise<OwnNetworkState | undefined>;
  /** The sandbox did not come to be: its place is removed, unless it was made a network for it. */
  giveUp(id: string): Promise<void>;
  /** On an error the caller removes what there is. @throws BelljarError `NETWORK_UNAVAILABLE`, `NETWORK_FAILED`, `PORT_IN_USE` */
  make(state: NetworkState, settings: NetworkSettings, options: MakeOptions): Promise<void>;
  /** Whether this process is in the namespace that the network has now. */
  isAt(state: NetworkState, pid: number): Promise<boolean>;
  /** After the VMM has ended. What is not there is success. */
  remove(state: NetworkState): Promise<void>;
  /** What is in a given namespace now. @throws BelljarError `NAMESPACE_INVALID`, `NETWORK_UNAVAILABLE` */
  scan(state: GivenNetworkState, signal?: AbortSignal): Promise<FoundNetwork>;
  /** Brings what is made in line with another state of the same network: more or fewer interfaces, other addresses. */
  refit(state: GivenNetworkState, signal?: AbortSignal): Promise<void>;
  /** What is left of an interface that the VM has let go of. */
  removeEndpoint(state: GivenNetworkState, endpoint: EndpointState): Promise<void>;
  /**
   * Looks host names of the policy up again, and lets the guest reach, or not reach, what they stand for by now. Nothing for a policy
   * without names.
   */
  renew(state: NetworkState, settings: NetworkSettings): Promise<void>;
  /** The guest's names for those that it is linked to, as lines of a file of hosts: they change as these come and go. */
  hostLines(state: NetworkState): readonly string[];
  /** Calls back when something has come or gone on a bridge; ends with what it answers. */
  onBridgeChange(callback: () => void): () => void;
  /** Calls back soon after something has changed in a given namespace, and perhaps when nothing has. */
  watch(state: GivenNetworkState, onChange: () => void, onFailure: (error: unknown) => void): NetworkWatch;
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
  /** By namespace, or by sandbox where that is somebody else's. */
  const planned = new Map<string, NetworkState>();
  const listeners = new Set<() => void>();
  const tell = (): void => {
    for (const callback of listeners) callback();
  };
  const bridge = new BridgeNetworks(prefix.slice("belljar-".length, -1), rootDir, disk);

  const ownOnes = (): readonly OwnNetworkState[] => [...planned.values()].filter(isOwn);

  /** What is expected of a place, in its rules; without rules where that cannot be said before, as what names will stand for. */
  const likely = async (place: OwnNetworkState, { ports, policy }: ExpectedNetwork): Promise<PreparedNetwork> => {
    if (hasNames(policy)) return { state: place };
    try {
      const destinations = await resolvePolicy(policy, lookUpName, hostAddresses());
      const nameServer = await hostNameServer();
      const state = { ...place, nameServer, ports: await choosePorts(ports, []) };
      return { state, rules: namespaceRules(state, destinations) };
    } catch {
      // Who asks for it is told.
      return { state: place };
    }
  };

  const newPlace = async (mode: OwnNetworkState["mode"], namespace: string): Promise<OwnNetworkState> => ({
    mode,
    namespace,
    macAddress: randomMac(randomBytes(5)),
    address: mode === "bridge" ? await bridge.address([...ownOnes(), ...prepared.places]) : USER_ADDRESS,
    mtu: MTU,
    ports: [],
  });

  const prepared = new PreparedNetworks({
    make: (expected, namespace, onDecided) =>
      turns.take(async () => {
        const place = await newPlace(expected.mode, namespace);
        const decided = expected.mode === "bridge" ? await likely(place, expected) : { state: place };
        onDecided(decided);
        const { state, rules } = decided;
        const isBridge = expected.mode === "bridge";
        await runLines(
          isBridge ? placeLines(state, rules, await bridge.lines(idOf(namespace), state)) : emptyLines(state),
        );
        return decided;
      }),
    leaveBridge: ({ namespace }) => turns.take(() => bridge.remove(idOf(namespace), ownOnes())),
  });

  /** On a bridge, in places that were prepared. */
  const opened = new Together<Opened>(turns, async (all, again) => {
    const lines: string[] = [];
    for (const { state, rules, loaded } of all) {
      lines.push(...(await bridge.linesAgain(idOf(state.namespace))));
      if (rules === loaded) continue;
      lines.push(...ruleLines(state, again || loaded !== undefined ? replacing(rules) : rules));
    }
    const ids = all.map(({ state }) => idOf(state.namespace));
    await runLines([...lines, ...(await bridge.openLines(ids, ownOnes()))]);
    for (const { state } of all) await bridge.admit(state, ownOnes());
  });

  const remove = async (namespace: string, uplink: OwnNetworkState["uplink"]): Promise<void> => {
    const programs = uplink === undefined ? await findSlirp(namespace) : [uplink];
    for (const program of programs) await endSlirp(program);
    await removeNamespace(namespace);
  };

  const removeOwn = async (state: OwnNetworkState): Promise<void> => {
    const { mode, namespace, uplink } = state;
    prepared.take(namespace);
    if (mode === "user") await remove(namespace, uplink);
    else await removeNamespace(namespace);
    await turns.take(async () => {
      planned.delete(keyOf(state));
      if (mode === "bridge") await bridge.remove(idOf(namespace), ownOnes());
    });
    if (mode === "bridge") tell();
  };

  const planOwn = async (
    namespace: string,
    mode: OwnNetworkState["mode"],
    settings: NetworkSettings,
  ): Promise<OwnNetworkState> => {
    const { allow } = await resolvePolicy(settings.policy, lookUpName, []);
    const nameServer = await hostNameServer();
    return await turns.take(async () => {
      const taken = ownOnes().flatMap(({ ports }) => ports);
      const place = prepared.find(mode, namespace);
      const state: OwnNetworkState = {
        ...(place ?? (await newPlace(mode, namespace))),
        nameServer,
        ports: await likelyPorts(settings.ports, place?.ports ?? [], taken),
        ...(mode === "bridge" ? { allowed: allow.flatMap(({ ranges }) => ranges) } : {}),
        ...(settings.rates === undefined ? {} : { rates: settings.rates }),
        ...(settings.links === undefined ? {} : { links: settings.links }),
      };
      planned.set(keyOf(state), state);
      return state;
    });
  };

  const makeOwn = async (
    state: OwnNetworkState,
    settings: NetworkSettings,
    { runDir, onUplink, signal }: MakeOptions,
  ): Promise<void> => {
    const { mode, namespace } = state;
    const destinations = await resolvePolicy(settings.policy, lookUpName, hostAddresses());
    const place = prepared.take(namespace);
    const rules = namespaceRules(state, destinations);
    if (mode === "user") {
      await runLines(place === undefined ? placeLines(state, rules) : openLines(state, rules), signal);
      const onSpawn = (uplink: ProcessIdentity): Promise<void> => onUplink({ ...state, uplink });
      await openSlirp(state, runDir, onSpawn, signal);
    } else if (place !== undefined) {
      await opened.add({ state, rules, loaded: place.rules });
    } else {
      await turns.take(async () => {
        const id = idOf(namespace);
        const lines = placeLines(state, rules, await bridge.lines(id, state));
        await runLines([...lines, ...(await bridge.openLines([id], ownOnes()))], signal);
        await bridge.admit(state, ownOnes());
      });
    }
  };

  const ahead = new AheadNetworks({
    plan: (namespace, settings) => planOwn(namespace, "bridge", settings),
    make: async (state, settings) => {
      const rules = namespaceRules(state, await resolvePolicy(settings.policy, lookUpName, hostAddresses()));
      const place = prepared.take(state.namespace);
      await opened.add({ state, rules, loaded: place?.rules });
    },
    remove: removeOwn,
  });

  return {
    plan: async (id, settings) => {
      const { mode } = settings;
      if (mode === "netns") {
        return await turns.take(async () => {
          const state = await planGiven(id, settings, [...planned.values()].filter(isGiven));
          planned.set(keyOf(state), state);
          return state;
        });
      }
      return (await ahead.planned(prefix + id, settings)) ?? (await planOwn(prefix + id, mode, settings));
    },

    adopt: (state) => void planned.set(keyOf(state), state),

    make: async (state, settings, { runDir, onUplink, signal }) => {
      if (state.mode === "netns") {
        await makeGiven(state, signal);
        return;
      }
      if (!(await ahead.made(state))) await makeOwn(state, settings, { runDir, onUplink, signal });
      throwIfAborted(signal);
      if (state.mode === "bridge") tell();
      await slowDown(state.namespace, state.rates, signal);
    },

    prepare: (id, expected, runDir, signal) => prepared.prepare(expected, prefix + id, runDir, signal),

    openAhead: (ids, settings) => {
      // A network of another kind has a program of its own behind it, or somebody else's namespace.
      if (settings.mode !== "bridge") return;
      for (const id of ids) if (prepared.find("bridge", prefix + id) !== undefined) ahead.begin(prefix + id, settings);
    },

    plannedAhead: (id, settings) => ahead.planned(prefix + id, settings),

    giveUp: async (id) => {
      await ahead.giveUp(prefix + id);
      await prepared.remove(prefix + id);
    },

    isAt: async (state, pid) => {
      const [wanted, own] = await Promise.all([stat(networkPath(state)), stat(`/proc/${pid}/ns/net`)]);
      return own.dev === wanted.dev && own.ino === wanted.ino;
    },

    remove: async (state) => {
      if (state.mode === "netns") {
        await removeGiven(state);
        await turns.take(async () => void planned.delete(keyOf(state)));
        return;
      }
      await ahead.forget(state.namespace);
      await removeOwn(state);
    },

    scan: scanGiven,

    refit: async (state, signal) => {
      await turns.take(async () => void planned.set(keyOf(state), state));
      await makeGiven(state, signal);
    },

    removeEndpoint,

    watch: watchGiven,

    hostLines: (state) =>
      state.mode === "netns"
        ? []
        : linkedPeers(state, [...planned.values()].filter(isOwn)).map(({ address, alias }) => `${address}\t${alias}`),

    onBridgeChange: (callback) => {
      listeners.add(callback);
      return () => void listeners.delete(callback);
    },

    renew: async (state, { policy }) => {
      if (state.mode === "netns" || !hasNames(policy)) return;
      const sets = addressSets(await resolvePolicy(policy, lookUpName, []));
      await inNamespace(state.namespace, ["nft", "-j", "list", "sets", "table", "inet", TABLE]).then(async (text) => {
        const rules = renewedSets(sets, readSets(text));
        if (rules === "") return;
        await inNamespace(state.namespace, ["nft", "-f", "-"], { input: Buffer.from(rules) });
      });
    },

    denied: async (state) => {
      if (state.mode === "netns") return await deniedGiven(state);
      const { namespace } = state;
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
        const waiting = [...prepared.places.map(({ namespace }) => namespace), ...ahead.namespaces];
        const kept = new Set([...ids, ...waiting.map(idOf)]);
        for (const name of await listNamespaces(prefix)) {
          if (!isId(idOf(name)) || kept.has(idOf(name))) continue;
          await remove(name, undefined);
          removed.add(idOf(name));
        }
        for (const id of await bridge.settle(kept, ownOnes())) removed.add(id);
        return [...removed];
      }),
  };
}

function isGiven(state: NetworkState): state is GivenNetworkState {
  return state.mode === "netns";
}

function isOwn(state: NetworkState): state is OwnNetworkState {
  return state.mode !== "netns";
}

function keyOf(state: NetworkState): string {
  return state.mode === "netns" ? `of ${state.sandboxId}` : state.namespace;
}

/** What goes to the guest waits before the link to it, what comes from it before the way out. */
async function slowDown(namespace: string, rates: Rates | undefined, signal: AbortSignal | undefined): Promise<void> {
  const { inBytesPerSecond, outBytesPerSecond } = rates ?? {};
  for (const [link, rate] of [
    [TAP, inBytesPerSecond],
    [UPLINK, outBytesPerSecond],
  ] as const) {
    if (rate !== undefined) await inNamespace(namespace, ["tc", ...shapingArguments(link, rate)], { signal });
  }
}

/** For those who have none to give. */
export const noNetworks: Networks = {
  plan: async () => {
    throw new BelljarError("NETWORK_UNAVAILABLE", "this runtime has no networks");
  },
  adopt: () => {},
  prepare: async () => {
    throw new BelljarError("NETWORK_UNAVAILABLE", "this runtime has no networks");
  },
  openAhead: () => {},
  plannedAhead: async () => undefined,
  giveUp: async () => {},
  make: async () => {},
  isAt: async () => false,
  remove: async () => {},
  scan: async () => ({ interfaces: [], routes: [], neighbours: [], owners: [] }),
  refit: async () => {},
  removeEndpoint: async () => {},
  watch: () => ({ stop: async () => {} }),
  hostLines: () => [],
  onBridgeChange: () => () => {},
  renew: async () => {},
  denied: async () => 0,
  traffic: async () => ({ packets: 0, connections: 0 }),
  sweep: async () => [],
};
