/**
 * The bridge networks of one root: its bridge is there while a sandbox of it is on it, with a range that is chosen once and kept in
 * `network.json`, so that sandboxes that were planned keep their addresses.
 */
import { join } from "node:path";
import { BelljarError, type Field } from "../base/index.ts";
import { type Disk, StateFile, type StateSchema } from "../store/index.ts";
import { parseRange, type Range, rangeText } from "./addresses.ts";
import {
  type BridgeHost,
  bridgeName,
  chooseAddress,
  chooseRange,
  hostRules,
  listPorts,
  openPortLines,
  portLines,
  portLinesAgain,
  portName,
  removeLink,
  uplinkOf,
  usedRanges,
  writeHostRules,
} from "./bridge.ts";
import { idOfNetwork, linkedFrom } from "./links.ts";
import { inNamespace, listNamespaces, type Uplink } from "./namespace.ts";
import { LINKED, TABLE } from "./rules.ts";
import type { OwnNetworkState } from "./state.ts";

interface BridgeState {
  readonly range: string;
}

const schema: StateSchema<BridgeState> = {
  kind: "network",
  migrations: [],
  decode: (field: Field) => ({ range: field.field("range").string({ maxLength: 18 }) }),
};

export class BridgeNetworks {
  readonly #name: string;
  readonly #file: StateFile<BridgeState>;
  #range: Range | undefined;
  #lastAddress: string | undefined;

  /** @param key of the root, in names of what is made on the host */
  constructor(key: string, rootDir: string, disk?: Disk) {
    this.#name = bridgeName(key);
    this.#file = new StateFile(join(rootDir, "network.json"), schema, disk);
  }

  /** An address that none of these has. @throws BelljarError `NO_FREE_ADDRESS` */
  async address(planned: Iterable<OwnNetworkState>): Promise<string> {
    const { range } = await this.#host();
    const taken = new Set([...planned].filter(isBridge).map(({ address }) => address));
    const address = chooseAddress(range, taken, this.#lastAddress);
    this.#lastAddress = address;
    return address;
  }

  /**
   * What makes the bridge and this sandbox's link to it, through which nothing gets: on the host, as lines of a shell's, and then in the
   * sandbox's namespace.
   */
  async lines(id: string, { namespace, mtu }: OwnNetworkState): Promise<Uplink> {
    const host = await this.#host();
    return { host: portLines(host, { sandboxId: id, namespace, mtu }), uplink: uplinkOf(host) };
  }

  /** The same on the host for links that are there, unless somebody has taken the bridge away. */
  async linesAgain(id: string): Promise<readonly string[]> {
    return portLinesAgain(await this.#host(), id);
  }

  /** What writes the host's rules for all of these and then lets some through, as lines of a shell's. */
  async openLines(ids: readonly string[], planned: Iterable<OwnNetworkState>): Promise<readonly string[]> {
    const rules = hostRules(await this.#host(), [...planned].filter(isBridge));
    return ["nft -f - <<'RULES'", rules, "RULES", ...openPortLines(ids)];
  }

  /** Those that are linked to this one, and those that it is linked to, are told in the rules of their own namespaces. */
  async admit(state: OwnNetworkState, planned: Iterable<OwnNetworkState>): Promise<void> {
    const all = [...planned].filter(isBridge);
    if (linkedFrom(state, all).length > 0) await this.#admit(state, all);
    for (const other of all.filter((each) => isLinkedTo(state, each))) await this.#admit(other, all);
  }

  /** Who is linked to this one, in the rules of its own namespace. One that is not made yet is told when it is. */
  async #admit(network: OwnNetworkState, all: readonly OwnNetworkState[]): Promise<void> {
    const addresses = linkedFrom(network, all);
    const add = addresses.length === 0 ? [] : [`add element inet ${TABLE} ${LINKED} { ${addresses.join(", ")} }`];
    const rules = [`flush set inet ${TABLE} ${LINKED}`, ...add, ""].join("\n");
    try {
      await inNamespace(network.namespace, ["nft", "-f", "-"], { input: Buffer.from(rules) });
    } catch (error) {
      if ((await listNamespaces(network.namespace)).length > 0 && isMade(error)) throw error;
    }
  }

  /** Everything of this sandbox that is not in its namespace, and of the root, when it was the last. */
  async remove(id: string, left: Iterable<OwnNetworkState>): Promise<void> {
    await removeLink(portName(id));
    await this.#write([...left].filter(isBridge));
  }

  /**
   * Brings the host in line with these sandboxes, whatever a former owner had left. Answers whose links were removed.
   * @param ids of all sandboxes that have a network, also of those whose state cannot be read
   */
  async settle(ids: ReadonlySet<string>, planned: Iterable<OwnNetworkState>): Promise<readonly string[]> {
    if ((await this.#readRange()) === undefined) return [];
    const lost = (await listPorts(this.#name)).filter((id) => !ids.has(id));
    for (const id of lost) await removeLink(portName(id));
    await this.#write([...planned].filter(isBridge));
    return lost;
  }

  async #write(networks: readonly OwnNetworkState[]): Promise<void> {
    const host = await this.#host();
    await writeHostRules(host, networks);
    if (networks.length === 0 && (await listPorts(host.name)).length === 0) await removeLink(host.name);
  }

  async #host(): Promise<BridgeHost> {
    const range = (await this.#readRange()) ?? (await this.#chooseRange());
    return { name: this.#name, range };
  }

  async #readRange(): Promise<Range | undefined> {
    if (this.#range !== undefined) return this.#range;
    try {
      const { range } = await this.#file.read();
      this.#range = parseRange(range);
      return this.#range;
    } catch (error) {
      if (error instanceof BelljarError && error.reason === "STATE_MISSING") return undefined;
      throw error;
    }
  }

  async #chooseRange(): Promise<Range> {
    const range = chooseRange(await usedRanges());
    await this.#file.write({ range: rangeText(range) });
    this.#range = range;
    return range;
  }
}

function isLinkedTo({ links = [] }: OwnNetworkState, other: OwnNetworkState): boolean {
  return links.some(({ sandbox }) => sandbox === idOfNetwork(other));
}

/** Its namespace may be there without rules yet. */
function isMade(error: unknown): boolean {
  return !(error instanceof BelljarError && /no such file/i.test(error.message));
}

function isBridge({ mode }: OwnNetworkState): boolean {
  return mode === "bridge";
}
