/**
 * The guest's network, as the host wants it: each interface is found by its place on the PCI bus, and is given its name, addresses and
 * routes by the guest's own `ip`. What it had before goes away: a guest that was copied takes up its new place without a trace of
 * the old one.
 */
import { readdir, readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { networkLimits } from "../src/base/limits.ts";
import { type PciPath, untilFound } from "./pci-devices.ts";
import type { RunTool } from "./tools.ts";

export interface NetworkDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
  /** Addresses of an interface, each with its prefix; the guest's own unless told. */
  readonly addressesOf?: (name: string) => readonly string[];
}

export interface NetworkRequest {
  readonly interfaces: readonly InterfaceRequest[];
  readonly routes: readonly RouteRequest[];
  readonly neighbours: readonly NeighbourRequest[];
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
  for (const each of interfaces) {
    const change = await interfaceLines(deps, each);
    lines.push(...change.lines);
    if (change.keeps) unchanged.add(each.name);
  }
  for (const { interfaceName, destination, gateway } of routes) {
    const name = checked(interfaceName, NAME, "interface");
    const what = destination === "default" ? destination : checked(destination, RANGE, "range");
    const via = gateway === "" ? "" : ` via ${checked(gateway, ADDRESS, "address")}`;
    if (!unchanged.has(name)) lines.push(`ip route replace ${what}${via} dev ${name}`);
  }
  for (const { interfaceName, address, macAddress } of neighbours) {
    const [name, at] = [checked(interfaceName, NAME, "interface"), checked(address, ADDRESS, "address")];
    const line = `arp -i ${name} -s ${at} ${checked(macAddress, MAC_ADDRESS, "hardware address")}`;
    if (!unchanged.has(name)) lines.push(line);
  }
  // One shell for all of it: a new program takes an emulated guest a tenth of a second.
  if (lines.length > 0) await deps.runTool("busybox", ["sh", "-ec", lines.join("\n")]);
}

/**
 * An interface that is up and has these addresses `keeps` its routes and neighbours: a copied guest whose address is as before gets
 * another hardware address, which virtio takes while it runs, and nothing else is touched.
 */
async function interfaceLines(
  deps: NetworkDeps,
  { name, pci, macAddress, mtu, addresses }: InterfaceRequest,
): Promise<{ readonly lines: readonly string[]; readonly keeps: boolean }> {
  checked(name, NAME, "interface");
  checked(macAddress, MAC_ADDRESS, "hardware address");
  for (const address of addresses) checked(address, RANGE, "range");
  if (!Number.isInteger(mtu) || mtu < 68 || mtu > 65_535)
    throw new BelljarError("INVALID_ARGUMENT", `${mtu} is no MTU`);
  const found = await findInterface(deps.sysDir, pci?.path ?? []);
  const read = async (file: string): Promise<string> =>
    (await readFile(join(deps.sysDir, "class/net", found, file), "utf8").catch(() => "")).trim();
  const isUp = (Number(await read("flags")) & 1) === 1;
  const hasOther = (await read("address")) !== macAddress;
  const readdress = hasOther ? [`ip link set ${found} address ${macAddress}`] : [];
  const present = new Set((deps.addressesOf ?? ownAddresses)(found));
  const isSame = present.size === addresses.length && addresses.every((address) => present.has(address));
  if (isUp && isSame && found === name) return { lines: readdress, keeps: true };
  const lines = [...readdress];
  if (isUp) {
    lines.push(`ip addr flush dev ${found}`, `ip neigh flush dev ${found} || true`);
    if (found !== name) lines.push(`ip link set ${found} down`);
  }
  if (found !== name) lines.push(`ip link set ${found} name ${name}`);
  lines.push(`ip link set ${name} mtu ${mtu} up`, ...addresses.map((address) => `ip addr add ${address} dev ${name}`));
  return { lines, keeps: false };
}

/** Those of IPv6 are the kernel's own. */
function ownAddresses(name: string): readonly string[] {
  return (networkInterfaces()[name] ?? []).flatMap(({ family, cidr }) =>
    family === "IPv4" && cidr !== null ? [cidr] : [],
  );
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
