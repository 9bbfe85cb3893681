/** A sandbox's network, to the wire and back. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../../base/index.ts";
import {
  type NetworkConfig,
  networkModes,
  type PortConfig,
  type PublishedPort,
  policyDefaults,
  protocols,
} from "../../network/index.ts";
import type { api } from "../../protocol/index.ts";
import type { HibernationInfo, NetworkInfo } from "../../runtime/index.ts";
import { given } from "./given.ts";

export function toNetworkSpec({ mode, ports, policy }: NetworkConfig): MessageInitShape<typeof api.NetworkSpecSchema> {
  return given({
    mode,
    ports: ports?.map((port) => given({ ...port })),
    allow: policy?.allow === undefined ? undefined : { values: [...policy.allow] },
    deny: policy?.deny === undefined ? undefined : { values: [...policy.deny] },
    policyDefault: policy?.default,
  });
}

export function fromNetworkSpec(wire: api.NetworkSpec): NetworkConfig {
  return {
    mode: wire.mode === undefined ? undefined : oneOf(wire.mode, networkModes, "kind of network"),
    ports: wire.ports.length === 0 ? undefined : wire.ports.map(fromPortSpec),
    policy: {
      allow: wire.allow?.values,
      deny: wire.deny?.values,
      default: wire.policyDefault === undefined ? undefined : oneOf(wire.policyDefault, policyDefaults, "policy"),
    },
  };
}

export function toNetworkInfo(info: NetworkInfo): MessageInitShape<typeof api.NetworkInfoSchema> {
  return { ...info, addresses: [...info.addresses], ports: info.ports.map((port) => ({ ...port })) };
}

export function fromNetworkInfo(wire: api.NetworkInfo): NetworkInfo {
  const { namespace, macAddress, addresses } = wire;
  return {
    mode: oneOf(wire.mode, networkModes, "kind of network"),
    namespace,
    macAddress,
    addresses,
    ports: wire.ports.map(fromPublishedPort),
  };
}

export function toHibernationInfo(info: HibernationInfo): MessageInitShape<typeof api.HibernationInfoSchema> {
  return { sinceMs: info.sinceMs, ports: info.ports.map((port) => ({ ...port })) };
}

export function fromHibernationInfo({ sinceMs, ports }: api.HibernationInfo): HibernationInfo {
  return { sinceMs, ports: ports.map(fromPublishedPort) };
}

function fromPublishedPort(port: api.PortSpec): PublishedPort {
  const { hostAddress = "", hostPort = 0, containerPort, protocol = "tcp" } = fromPortSpec(port);
  return { hostAddress, hostPort, containerPort, protocol };
}

export function fromPortSpec({ hostAddress, hostPort, containerPort, protocol }: api.PortSpec): PortConfig {
  return {
    hostAddress,
    hostPort,
    containerPort,
    protocol: protocol === undefined ? undefined : oneOf(protocol, protocols, "protocol"),
  };
}

function oneOf<W extends string>(word: string, words: readonly W[], what: string): W {
  const found = words.find((each) => each === word);
  if (found !== undefined) return found;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word.slice(0, 80))} is no ${what}`, {
    remedy: `Use one of ${words.join(", ")}.`,
  });
}
