/**
 * Where a sandbox may connect to. What is denied wins over what is allowed, and that over what is closed by itself: addresses that are
 * nobody's on the public network, and the host. Names stand for the addresses that they have had since the sandbox started.
 */
import { BelljarError, type Field, networkLimits } from "../base/index.ts";
import { parseRange, rangeText } from "./addresses.ts";

export const policyDefaults = ["open", "closed"] as const;
export type PolicyDefault = (typeof policyDefaults)[number];

export interface PolicyConfig {
  /** Each `HOST`, `ADDRESS` or `RANGE`, with `:PORT` behind it for that port alone. */
  readonly allow?: readonly string[] | undefined;
  readonly deny?: readonly string[] | undefined;
  /** What becomes of public addresses that nobody has named; `open` unless told. */
  readonly default?: PolicyDefault | undefined;
}

export interface Policy {
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  readonly default: PolicyDefault;
}

/** A destination whose name has been looked up. */
export interface Destination {
  readonly ranges: readonly string[];
  readonly port?: number | undefined;
  /** The host name that these are the addresses of. */
  readonly name?: string | undefined;
}

export interface Destinations {
  readonly allow: readonly Destination[];
  readonly deny: readonly Destination[];
  /** Closed unless it was allowed: private ranges, and the host's own addresses. */
  readonly closed: readonly string[];
  readonly default: PolicyDefault;
}

/** IANA's special-purpose ranges that are not globally reachable, and multicast. */
export const PRIVATE_RANGES: readonly string[] = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3",
];

const HOST_NAME =
  /^(?=.{1,253}$)[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?)*\.?$/;

interface Rule {
  readonly target: string;
  readonly port?: number | undefined;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settlePolicy({ allow = [], deny = [], default: word = "open" }: PolicyConfig): Policy {
  for (const list of [allow, deny]) {
    if (list.length > networkLimits.rulesMax) {
      throw new BelljarError("INVALID_ARGUMENT", `${list.length} rules are too many`, {
        facts: { max: networkLimits.rulesMax },
      });
    }
    for (const text of list) parseRule(text);
  }
  if (!policyDefaults.includes(word)) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word)} is not ${policyDefaults.join(" or ")}`);
  }
  return { allow: [...allow], deny: [...deny], default: word };
}

/** Looks up the addresses of a host name. */
export type LookUp = (name: string) => Promise<readonly string[]>;

/**
 * @param hostAddresses the host's own
 * @throws BelljarError `NETWORK_FAILED` for a name that has no address
 */
export async function resolvePolicy(
  policy: Policy,
  lookUp: LookUp,
  hostAddresses: readonly string[],
): Promise<Destinations> {
  const resolve = async (text: string): Promise<Destination> => {
    const { target, port } = parseRule(text);
    const range = parseRange(target);
    if (range !== undefined) return { ranges: [rangeText(range)], port };
    const addresses = (await lookUp(target)).slice(0, networkLimits.addressesPerNameMax);
    if (addresses.length === 0) {
      throw new BelljarError("NETWORK_FAILED", `the host name ${target} of a network rule has no IPv4 address`);
    }
    return { ranges: addresses.map((address) => `${address}/32`), port, name: target };
  };
  return {
    allow: await Promise.all(policy.allow.map(resolve)),
    deny: await Promise.all(policy.deny.map(resolve)),
    closed: [...PRIVATE_RANGES, ...hostAddresses.map((address) => `${address}/32`)],
    default: policy.default,
  };
}

/** Some of it stands for addresses that may change. */
export function hasNames({ allow, deny }: Policy): boolean {
  return [...allow, ...deny].some((text) => parseRange(parseRule(text).target) === undefined);
}

export function decodePolicy(field: Field): Policy {
  const list = (name: string): string[] =>
    field.field(name).array((text) => text.string({ maxLength: 300 }), { maxItems: networkLimits.rulesMax });
  return { allow: list("allow"), deny: list("deny"), default: field.field("default").oneOf(policyDefaults) };
}

function parseRule(text: string): Rule {
  const [, target = "", digits] = /^(.+?)(?::(\d{1,5}))?$/.exec(text) ?? [];
  const port = digits === undefined ? undefined : Number(digits);
  const isAddress = parseRange(target) !== undefined;
  // What looks like an address and is none would be asked of a name server.
  const isName = HOST_NAME.test(target) && !/^[\d./]+$/.test(target);
  if ((isAddress || isName) && (port === undefined || (port > 0 && port <= 65_535))) return { target, port };
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 80))} names no destination`, {
    remedy:
      "Write a host name, an IPv4 address or a range such as 10.1.0.0/16, with :PORT behind it for one port alone.",
  });
}
