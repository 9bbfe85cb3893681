/** Which sandboxes of a bridge another one may reach, and under which names: nobody's but those that it was linked to. */
import { BelljarError, type Field, isId, networkLimits } from "../base/index.ts";
import { rangeText, toNumber } from "./addresses.ts";

export interface Link {
  /** Name or id while it is asked for; the id in every state. */
  readonly sandbox: string;
  /** The guest's name for it. */
  readonly alias: string;
}

/** A sandbox's network, as far as links go. */
export interface LinkedNetwork {
  readonly mode: string;
  readonly namespace: string;
  readonly address: string;
  readonly links?: readonly Link[] | undefined;
}

/** It becomes a line of the guest's file of hosts. */
export const ALIAS = /^[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$/;

/** Of every bridge: what is on it shares these bits. */
const PREFIX = 16;

/** Reads `NAME[:ALIAS]`. @throws BelljarError `INVALID_ARGUMENT` */
export function settleLinks(texts: readonly string[]): readonly Link[] {
  if (texts.length > networkLimits.linksMax) {
    throw new BelljarError("INVALID_ARGUMENT", `${texts.length} links are too many`, {
      facts: { max: networkLimits.linksMax },
    });
  }
  return texts.map((text) => {
    const [sandbox = "", alias = sandbox, ...rest] = text.split(":");
    if (sandbox !== "" && ALIAS.test(alias) && rest.length === 0) return { sandbox, alias };
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 80))} is no link`, {
      remedy: "Write the name of a sandbox on a bridge, and behind it the name that it is to have: NAME[:ALIAS].",
    });
  });
}

export function decodeLink(field: Field): Link {
  const sandbox = field.field("sandbox").string({ maxLength: 64 });
  if (!isId(sandbox)) throw field.field("sandbox").expected("an id");
  return { sandbox, alias: field.field("alias").string({ pattern: ALIAS }) };
}

export function idOfNetwork({ namespace }: Pick<LinkedNetwork, "namespace">): string {
  return namespace.slice(-12);
}

/** Those that it is linked to and that are there. */
export function linkedPeers(
  { links = [] }: LinkedNetwork,
  all: readonly LinkedNetwork[],
): readonly { readonly address: string; readonly alias: string }[] {
  return links.flatMap(({ sandbox, alias }) => {
    const peer = all.find((each) => each.mode === "bridge" && idOfNetwork(each) === sandbox);
    return peer === undefined ? [] : [{ address: peer.address, alias }];
  });
}

/** Addresses of those that are linked to this one. */
export function linkedFrom(network: LinkedNetwork, all: readonly LinkedNetwork[]): readonly string[] {
  const id = idOfNetwork(network);
  return all.filter(({ links = [] }) => links.some(({ sandbox }) => sandbox === id)).map(({ address }) => address);
}

/** The whole bridge but for its gateway: the host's own rules say who of it may be reached. */
export function bridgeMatch(address: string): string {
  const base = Math.floor(toNumber(address) / 2 ** (32 - PREFIX)) * 2 ** (32 - PREFIX);
  const gateway = rangeText({ address: base + 1, prefix: 32 });
  return `ip daddr ${rangeText({ address: base, prefix: PREFIX })} ip daddr != ${gateway}`;
}
