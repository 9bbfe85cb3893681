/**
 * The guest's network, as the host wants it: each interface is found by its place on the PCI bus, and is given its name, addresses and
 * routes by the guest's own `ip`. What it had before goes away: a guest that was copied takes up its new place without a trace of
 * the old one.
 */
import { readdir, readFile } from "node:fs/promises";
import { BlockList } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { networkLimits } from "../src/base/limits.ts";
import { ownAddresses, readRoutes } from "./network-table.ts";
import { type PciPath, untilFound } from "./pci-devices.ts";
import type { RunTool } from "./tools.ts";

export interface NetworkDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
  /** `/proc` unless told. */
  readonly procDir?: string;
  /** Ends the connections of addresses. */
  readonly disconnect?: ((addresses: readonly string[]) => Promise<void>) | undefined;
  /** Addresses of an interface, each with its prefix; the guest's own unless told. */
  readonly addressesOf?: (name: string) => readonly string[];
}

export interface NetworkRequest {
  readonly interfaces: readonly InterfaceRequest[];
  readonly routes: readonly RouteRequest[];
  readonly neighbours: readonly NeighbourRequest[];
  readonly replaceRoutes?: boolean;
  /** Also routes and neighbours of an interface that keeps its addresses. */
  readonly setAgain?: boolean;
}

interface InterfaceRequest {
  readonly name: string;
  readonly pci?: { readonly path: PciPath } | undefined;
  readonly macAddress: string;
  readonly mtu: number;
  readonly addresses: readonly string[];
}

interface RouteRequest {
  readonly interfaceName: string;
  readonly destination: string;
  readonly gateway: string;
}

interface NeighbourRequest {
  readonly interfaceName: string;
  readonly address: string;
  readonly macAddress: string;
}

const NAME = /^[a-z][a-z0-9]{0,14}$/;
const ADDRESS = /^[0-9a-f.:]{2,45}$/;
const RANGE = /^[0-9a-f.:]{2,45}\/\d{1,3}$/;
const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

/** @throws BelljarError `INVALID_ARGUMENT`, `AGENT_FAILED` when an interface does not appear or the kernel refuses something */
export async function configureNetwork(deps: NetworkDeps, request: NetworkRequest): Promise<void> {
  const { interfaces, routes, neighbours } = request;
  if (interfaces.length > networkLimits.interfacesMax || routes.length + neighbours.length > networkLimits.routesMax) {
    throw new BelljarError("INVALID_ARGUMENT", "more of a network than a guest can be told at once");
  }
  const lines: string[] = [];
  const unchanged = new Set<string>();
  const before = new Set<string>();
  const { moves, found } = await findAll(deps, interfaces);
  lines.push(...moves);
  for (const each of interfaces) {
    const change = await interfaceLines(deps, each, found.get(each) ?? "");
    lines.push(...change.lines);
    if (change.keeps) unchanged.add(each.name);
    for (const address of change.present) before.add(address);
  }
  if (request.replaceRoutes === true) {
    lines.push(...(await staleRoutes(deps, request)));
    unchanged.clear();
  }
  if (request.setAgain === true) unchanged.clear();
  for (const { interfaceName, destination, gateway } of routes) {
    const name = checked(interfaceName, NAME, "interface");
    const what = destination === "default" ? destination : checked(destination, RANGE, "range");
    const via = gateway === "" ? "" : ` via ${checked(gateway, ADDRESS, "address")}`;
    if (!unchanged.has(name)) lines.push(`${ipFor(what, gateway)} route replace ${what}${via} dev ${name}`);
  }
  for (const { interfaceName, address, macAddress } of neighbours) {
    const [name, at] = [checked(interfaceName, NAME, "interface"), checked(address, ADDRESS, "address")];
    const line = `arp -i ${name} -s ${at} ${checked(macAddress, MAC_ADDRESS, "hardware address")}`;
    if (!unchanged.has(name)) lines.push(line);
  }
  // One shell for all of it: a new program takes an emulated guest a tenth of a second.
  if (lines.length > 0) await deps.runTool("busybox", ["sh", "-ec", lines.join("\n")]);
  // Nothing would get out on their connections, and who has them would wait for long.
  const left = before.difference(new Set(interfaces.flatMap(({ addresses }) => addresses)));
  if (left.size > 0) await deps.disconnect?.([...left].map((range) => range.replace(/\/.*/, "")));
}

/** `default` says nothing of its family. */
function ipFor(destination: string, gateway: string): string {
  return destination.includes(":") || gateway.includes(":") ? "ip -6" : "ip";
}

/** Removes what is there of these interfaces and is not wanted; the ranges of their own addresses are the kernel's. */
async function staleRoutes(deps: NetworkDeps, { interfaces, routes }: NetworkRequest): Promise<string[]> {
  const wanted = new Set(routes.map((route) => `${route.interfaceName} ${route.destination} ${route.gateway}`));
  return (await readRoutes({ procDir: deps.procDir ?? "/proc" })).flatMap((route) => {
    const { interfaceName, destination, gateway } = route;
    const of = interfaces.find(({ name }) => name === interfaceName);
    const isOwn = gateway === "" && of?.addresses.some((address) => isWithin(address, destination)) === true;
    if (of === undefined || isOwn || wanted.has(`${interfaceName} ${destination} ${gateway}`)) return [];
    const via = gateway === "" ? "" : ` via ${gateway}`;
    return [`${ipFor(destination, gateway)} route del ${destination}${via} dev ${interfaceName} || true`];
  });
}

/** Whether this is the range that an address with its prefix is in. */
function isWithin(address: string, range: string): boolean {
  const [at = "", prefix = ""] = address.split("/");
  const [base = "", length = ""] = range.split("/");
  if (prefix !== length || at.includes(":") !== base.includes(":")) return false;
  const list = new BlockList();
  const family = at.includes(":") ? "ipv6" : "ipv4";
  list.addSubnet(base, Number(prefix), family);
  return list.check(at, family);
}

/**
 * The kernel's name of each, and what must be moved out of the way first: a name that one is to have can be another's, as the kernel
 * numbers interfaces in the order in which it finds them.
 */
async function findAll(
  deps: NetworkDeps,
  interfaces: readonly InterfaceRequest[],
): Promise<{ readonly moves: readonly string[]; readonly found: ReadonlyMap<InterfaceRequest, string> }> {
  const found = new Map<InterfaceRequest, string>();
  for (const each of interfaces) {
    checked(each.name, NAME, "interface");
    found.set(each, await findInterface(deps.sysDir, each.pci?.path ?? []));
  }
  const moves: string[] = [];
  for (const [index, each] of interfaces.entries()) {
    const present = found.get(each) ?? "";
    const isInTheWay = interfaces.some((other) => other !== each && other.name === present);
    if (!isInTheWay) continue;
    const aside = `moved${index}`;
    moves.push(`ip link set ${present} down`, `ip link set ${present} name ${aside}`);
    found.set(each, aside);
  }
  return { moves, found };
}

/**
 * An interface that is up and has these addresses `keeps` its routes and neighbours: a copied guest whose address is as before gets
 * another hardware address, which virtio takes while it runs, and nothing else is touched.
 */
async function interfaceLines(
  deps: NetworkDeps,
  { name, macAddress, mtu, addresses }: InterfaceRequest,
  found: string,
): Promise<{ readonly lines: readonly string[]; readonly keeps: boolean; readonly present: ReadonlySet<string> }> {
  checked(macAddress, MAC_ADDRESS, "hardware address");
  for (const address of addresses) checked(address, RANGE, "range");
  if (!Number.isInteger(mtu) || mtu < 68 || mtu > 65_535)
    throw new BelljarError("INVALID_ARGUMENT", `${mtu} is no MTU`);
  const read = async (file: string): Promise<string> =>
    (await readFile(join(deps.sysDir, "class/net", found, file), "utf8").catch(() => "")).trim();
  const isUp = (Number(await read("flags")) & 1) === 1;
  const hasOther = (await read("address")) !== macAddress;
  const readdress = hasOther ? [`ip link set ${found} address ${macAddress}`] : [];
  const present = new Set((deps.addressesOf ?? ownAddresses)(found));
  const isSame = present.size === addresses.length && addresses.every((address) => present.has(address));
  if (isUp && isSame && found === name) {
    const mtuNow = await read("mtu");
    const resize = mtuNow === "" || Number(mtuNow) === mtu ? [] : [`ip link set ${name} mtu ${mtu}`];
    return { lines: [...readdress, ...resize], keeps: true, present: new Set() };
  }
  const lines = [...readdress];
  if (isUp) {
    lines.push(`ip addr flush dev ${found}`, `ip neigh flush dev ${found} || true`);
    if (found !== name) lines.push(`ip link set ${found} down`);
  }
  if (found !== name) lines.push(`ip link set ${found} name ${name}`);
  // Without an address of IPv6 there is nobody to speak it with: no address of the link's own, no duplicates to look for, no groups to join.
  const isWithout6 = addresses.every((address) => !address.includes(":"));
  lines.push(
    `echo ${isWithout6 ? 1 : 0} >/proc/sys/net/ipv6/conf/${name}/disable_ipv6`,
    `ip link set ${name} mtu ${mtu} up`,
    ...addresses.map((address) => `${ipFor(address, "")} addr add ${address} dev ${name}`),
  );
  return { lines, keeps: false, present };
}

/** Name of the interface at this place, once its driver has made it. */
async function findInterface(sysDir: string, path: PciPath): Promise<string> {
  const dir = await untilFound(sysDir, path);
  const endMs = performance.now() + networkLimits.interfaceTimeoutMs;
  for (;;) {
    for (const below of await namesIn(dir)) {
      const [name] = below.startsWith("virtio") ? await namesIn(join(dir, below, "net")) : [];
      if (name !== undefined) return name;
    }
    const [name] = await namesIn(join(dir, "net"));
    if (name !== undefined) return name;
    if (performance.now() > endMs) {
      throw new BelljarError("AGENT_FAILED", `the device at ${path.join("/")} has no network interface in the guest`);
    }
    await sleep(networkLimits.interfacePollMs);
  }
}

async function namesIn(dir: string): Promise<string[]> {
  return await readdir(dir).catch(() => []);
}

function checked(text: string, pattern: RegExp, what: string): string {
  if (pattern.test(text)) return text;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 60))} is no ${what}`);
}
