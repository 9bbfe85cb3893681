/** What a caller asks of a sandbox's network, checked before anything is made. */
import { BelljarError, type Field, networkLimits } from "../base/index.ts";
import { decodePolicy, type Policy, type PolicyConfig, settlePolicy } from "./policy.ts";
import { decodePublishedPort, type PortConfig, type PublishedPort, settlePorts } from "./ports.ts";

/** `none` is loopback alone. */
export const networkModes = ["none", "user", "bridge"] as const;
export type NetworkMode = (typeof networkModes)[number];

export interface NetworkConfig {
  readonly mode?: NetworkMode | undefined;
  readonly ports?: readonly PortConfig[] | undefined;
  readonly policy?: PolicyConfig | undefined;
}

/** With every default filled in; a sandbox without a network has none. */
export interface NetworkSettings {
  readonly mode: Exclude<NetworkMode, "none">;
  /** Where 0 stands for the host's port, every start chooses one. */
  readonly ports: readonly PublishedPort[];
  readonly policy: Policy;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleNetwork(config: NetworkConfig): NetworkSettings | undefined {
  const { mode = "none", ports = [], policy = {} } = config;
  if (!networkModes.includes(mode)) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(mode)} is no kind of network`, {
      remedy: `Use one of ${networkModes.join(", ")}.`,
    });
  }
  const settled = { ports: settlePorts(ports), policy: settlePolicy(policy) };
  if (mode !== "none") return { mode, ...settled };
  const hasRules = (policy.allow ?? []).length > 0 || (policy.deny ?? []).length > 0 || policy.default !== undefined;
  if (ports.length > 0 || hasRules) {
    const what = ports.length > 0 ? "a port cannot be published" : "there is nothing to allow or deny";
    throw new BelljarError("INVALID_ARGUMENT", `${what} without a network`, {
      remedy: "Give the sandbox a network, such as `--network user`.",
    });
  }
  return undefined;
}

/**
 * What a copy of a sandbox has: the same kind of network and policy, and ports of its own, since the source has its own still.
 * @param ports in place of the source's
 * @throws BelljarError `INVALID_ARGUMENT`
 */
export function copiedNetwork(
  settings: NetworkSettings | undefined,
  ports: readonly PortConfig[] | undefined,
): NetworkSettings | undefined {
  if (settings !== undefined) {
    const own = ports === undefined ? settings.ports.map((port) => ({ ...port, hostPort: 0 })) : settlePorts(ports);
    return { ...settings, ports: own };
  }
  if (ports === undefined || ports.length === 0) return undefined;
  throw new BelljarError("INVALID_ARGUMENT", "a port cannot be published: the source had no network");
}

export function decodeNetworkSettings(field: Field): NetworkSettings {
  return {
    mode: field.field("mode").oneOf(["user", "bridge"]),
    ports: field.field("ports").array(decodePublishedPort, { maxItems: networkLimits.portsMax }),
    policy: decodePolicy(field.field("policy")),
  };
}
