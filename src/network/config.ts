/** What a caller asks of a sandbox's network, checked before anything is made. */
import { BelljarError, type Field, networkLimits } from "../base/index.ts";
import { decodeGivenPlace, type EndpointModel, type GivenPlace, settleGivenPlace } from "./given-place.ts";
import { decodeLink, type Link, settleLinks } from "./links.ts";
import { decodePolicy, type Policy, type PolicyConfig, settlePolicy } from "./policy.ts";
import { decodePublishedPort, type PortConfig, type PublishedPort, settlePorts } from "./ports.ts";
import { decodeRates, type RateConfig, type Rates, settleRates } from "./rates.ts";

/** `none` is loopback alone, `netns` a namespace that somebody else has made. */
export const networkModes = ["none", "user", "bridge", "netns"] as const;
export type NetworkMode = (typeof networkModes)[number];

export interface NetworkConfig {
  readonly mode?: NetworkMode | undefined;
  readonly ports?: readonly PortConfig[] | undefined;
  readonly policy?: PolicyConfig | undefined;
  /** How fast it may be; as fast as it can unless told. */
  readonly rates?: RateConfig | undefined;
  /** Of `bridge`: other sandboxes that it may reach, each `NAME`, with `:ALIAS` behind it for another name than its own. */
  readonly links?: readonly string[] | undefined;
  /** Of `netns`: path of the namespace, such as `/run/netns/name` or `/proc/PID/ns/net`. */
  readonly path?: string | undefined;
  /** Of `netns`: how the VM is joined to its interfaces; `tcfilter` unless told. */
  readonly model?: EndpointModel | undefined;
}

/** With every default filled in; a sandbox without a network has none. */
export interface NetworkSettings {
  readonly mode: Exclude<NetworkMode, "none">;
  /** Where 0 stands for the host's port, every start chooses one. */
  readonly ports: readonly PublishedPort[];
  readonly policy: Policy;
  readonly rates?: Rates | undefined;
  /** Of `bridge`. */
  readonly links?: readonly Link[] | undefined;
  /** Of `netns`. */
  readonly given?: GivenPlace | undefined;
}

/** What will probably be asked for a sandbox that is not there yet, in a namespace of its own. */
export interface ExpectedNetwork extends Pick<NetworkSettings, "policy" | "ports"> {
  readonly mode: Exclude<NetworkSettings["mode"], "netns">;
}

/** What somebody has asked for, to be expected again, with ports that are free then. Undefined for a namespace of somebody else's. */
export function expectedNetwork({
  mode,
  ports,
  policy = settlePolicy({}),
}: Pick<NetworkSettings, "mode" | "ports"> & Partial<Pick<NetworkSettings, "policy">>): ExpectedNetwork | undefined {
  if (mode === "netns") return undefined;
  return { mode, ports: ports.map((port) => ({ ...port, hostPort: 0 })), policy };
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleNetwork(config: NetworkConfig): NetworkSettings | undefined {
  const { mode = "none", ports = [], policy = {} } = config;
  if (!networkModes.includes(mode)) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(mode)} is no kind of network`, {
      remedy: `Use one of ${networkModes.join(", ")}.`,
    });
  }
  const rates = settleRates(config.rates);
  const settled = {
    ports: settlePorts(ports),
    policy: settlePolicy(policy),
    ...(rates === undefined ? {} : { rates }),
    ...((config.links ?? []).length === 0 ? {} : { links: settleLinks(config.links ?? []) }),
  };
  if (mode !== "bridge" && settled.links !== undefined) {
    throw new BelljarError("INVALID_ARGUMENT", "only sandboxes on a bridge can be linked", {
      remedy: "Use `--network bridge`.",
    });
  }
  if (mode !== "netns" && (config.path ?? config.model) !== undefined) {
    throw new BelljarError("INVALID_ARGUMENT", "only a network of the kind netns has a path and a model");
  }
  const what = whatNeedsOwnNetwork(ports, policy);
  if (mode === "netns") {
    if (what !== undefined) {
      throw new BelljarError("INVALID_ARGUMENT", `${what} in a namespace that is somebody else's`, {
        remedy: "Its owner says what comes in and goes out; or use `--network bridge`.",
      });
    }
    return { mode, ...settled, given: settleGivenPlace(config.path, config.model) };
  }
  if (mode !== "none") return { mode, ...settled };
  if (what !== undefined || rates !== undefined) {
    throw new BelljarError("INVALID_ARGUMENT", `${what ?? "there is no speed to limit"} without a network`, {
      remedy: "Give the sandbox a network, such as `--network user`.",
    });
  }
  return undefined;
}

/** What of it only a namespace of our own can do. */
function whatNeedsOwnNetwork(ports: readonly PortConfig[], policy: PolicyConfig): string | undefined {
  if (ports.length > 0) return "a port cannot be published";
  const hasRules = (policy.allow ?? []).length > 0 || (policy.deny ?? []).length > 0 || policy.default !== undefined;
  return hasRules ? "there is nothing to allow or deny" : undefined;
}

/** What a copy's network is to be other than its source's. */
export interface CopiedNetworkConfig {
  readonly ports?: readonly PortConfig[] | undefined;
  /** Another kind of network, or another namespace; its ports are `ports`. */
  readonly network?: Omit<NetworkConfig, "ports"> | undefined;
}

/**
 * What a copy of a sandbox has: the same kind of network and policy, and ports of its own, since the source has its own still.
 * @throws BelljarError `INVALID_ARGUMENT`
 */
export function copiedNetwork(
  settings: NetworkSettings | undefined,
  { ports, network }: CopiedNetworkConfig = {},
): NetworkSettings | undefined {
  if (network !== undefined) return settleNetwork({ ...network, ports });
  if (settings?.given !== undefined) {
    throw new BelljarError("INVALID_ARGUMENT", "a copy cannot have the network namespace that its source has", {
      remedy:
        "Make a checkpoint, and restore it with `--network netns:PATH` of another one, or with `--network bridge`.",
    });
  }
  if (settings !== undefined) {
    const own = ports === undefined ? settings.ports.map((port) => ({ ...port, hostPort: 0 })) : settlePorts(ports);
    return { ...settings, ports: own };
  }
  if (ports === undefined || ports.length === 0) return undefined;
  throw new BelljarError("INVALID_ARGUMENT", "a port cannot be published: the source had no network");
}

export function decodeNetworkSettings(field: Field): NetworkSettings {
  return {
    mode: field.field("mode").oneOf(["user", "bridge", "netns"]),
    ports: field.field("ports").array(decodePublishedPort, { maxItems: networkLimits.portsMax }),
    policy: decodePolicy(field.field("policy")),
    rates: field.field("rates").optional(decodeRates),
    links: field.field("links").optional((list) => list.array(decodeLink, { maxItems: networkLimits.linksMax })),
    given: field.field("given").optional(decodeGivenPlace),
  };
}
