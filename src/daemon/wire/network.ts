/** A sandbox's network, to the wire and back. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../../base/index.ts";
import {
  endpointModels,
  type NetworkConfig,
  networkModes,
  type PortConfig,
  type PublishedPort,
  policyDefaults,
  protocols,
} from "../../network/index.ts";
import type { api } from "../../protocol/index.ts";
import type { HibernationInfo, InterfaceInfo, NetworkInfo, RouteInfo } from "../../runtime/index.ts";
import { given } from "./given.ts";

export function toNetworkSpec(config: NetworkConfig): MessageInitShape<typeof api.NetworkSpecSchema> {
  const { mode, ports, policy, path, model, rates, links } = config;
  return given({
    mode,
    path,
    model,
    ...rates,
    links: links === undefined ? undefined : [...links],
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
    path: wire.path,
    model: wire.model === undefined ? undefined : oneOf(wire.model, endpointModels, "way to join an interface"),
    ...ratesOf(wire),
    ...(wire.links.length === 0 ? {} : { links: wire.links }),
  };
}

export function toNetworkInfo(info: NetworkInfo): MessageInitShape<typeof api.NetworkInfoSchema> {
  return {
    ...info,
    addresses: [...info.addresses],
    ports: info.ports.map((port) => ({ ...port })),
    interfaces: (info.interfaces ?? []).map((each) => ({ ...each, addresses: [...each.addresses] })),
  };
}

export function fromNetworkInfo(wire: api.NetworkInfo): NetworkInfo {
  const { namespace, macAddress, addresses } = wire;
  return {
    mode: oneOf(wire.mode, networkModes, "kind of network"),
    namespace,
    macAddress,
    addresses,
    ...(wire.interfaces.length === 0 ? {} : { interfaces: wire.interfaces.map(fromNetworkInterface) }),
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

export function toInterfaceInfo(info: InterfaceInfo): MessageInitShape<typeof api.InterfaceInfoSchema> {
  return given({ ...info, addresses: [...info.addresses] });
}

export function fromInterfaceInfo(wire: api.InterfaceInfo): InterfaceInfo {
  const { name, macAddress, mtu, up, addresses, source } = wire;
  return { name, macAddress, mtu, up, addresses, ...(source === undefined ? {} : { source }) };
}

export function toRouteSpec(route: RouteInfo): MessageInitShape<typeof api.RouteSpecSchema> {
  return given({ ...route });
}

export function fromRouteSpec({ interfaceName, destination, gateway }: api.RouteSpec): RouteInfo {
  return { interfaceName, destination, ...(gateway === undefined ? {} : { gateway }) };
}

function fromNetworkInterface(wire: api.NetworkInterfaceInfo): NonNullable<NetworkInfo["interfaces"]>[number] {
  const { name, source, kind, macAddress, mtu, addresses } = wire;
  return { name, source, kind, macAddress, mtu, addresses };
}

function ratesOf({ inBytesPerSecond, outBytesPerSecond }: api.NetworkSpec): Pick<NetworkConfig, "rates"> {
  if (inBytesPerSecond === undefined && outBytesPerSecond === undefined) return {};
  return { rates: given({ inBytesPerSecond, outBytesPerSecond }) };
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
