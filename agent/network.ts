/**
 * The guest's network, as the host wants it: each interface is found by its place on the PCI bus, and is given its name, addresses and
 * routes by the guest's own `ip`. What it had before goes away: a guest that was copied takes up its new place without a trace of
 * the old one.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { networkLimits } from "../src/base/limits.ts";
import { type PciPath, untilFound } from "./pci-devices.ts";
import type { RunTool } from "./tools.ts";

export interface NetworkDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
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
  for (const each of interfaces) lines.push(...(await interfaceLines(deps, each)));
  for (const { interfaceName, destination, gateway } of routes) {
    const what = destination === "default" ? destination : checked(destination, RANGE, "range");
    const via = gateway === "" ? "" : ` via ${checked(gateway, ADDRESS, "address")}`;
    lines.push(`ip route replace ${what}${via} dev ${checked(interfaceName, NAME, "interface")}`);
  }
  for (const { interfaceName, address, macAddress } of neighbours) {
    const [name, at] = [checked(interfaceName, NAME, "interface"), checked(address, ADDRESS, "address")];
    lines.push(`arp -i ${name} -s ${at} ${checked(macAddress, MAC_ADDRESS, "hardware address")}`);
  }
  // One shell for all of it: a new program takes an emulated guest a tenth of a second.
  if (lines.length > 0) await deps.runTool("busybox", ["sh", "-ec", lines.join("\n")]);
}

async function interfaceLines(
  deps: NetworkDeps,
  { name, pci, macAddress, mtu, addresses }: InterfaceRequest,
): Promise<string[]> {
  checked(name, NAME, "interface");
  checked(macAddress, MAC_ADDRESS, "hardware address");
  if (!Number.isInteger(mtu) || mtu < 68 || mtu > 65_535)
    throw new BelljarError("INVALID_ARGUMENT", `${mtu} is no MTU`);
  const found = await findInterface(deps.sysDir, pci?.path ?? []);
  const read = async (file: string): Promise<string> =>
    (await readFile(join(deps.sysDir, "class/net", found, file), "utf8").catch(() => "")).trim();
  const isUp = (Number(await read("flags")) & 1) === 1;
  const lines = isUp ? [`ip addr flush dev ${found}`, `ip neigh flush dev ${found} || true`] : [];
  const hasOther = (await read("address")) !== macAddress;
  if (isUp && (hasOther || found !== name)) lines.push(`ip link set ${found} down`);
  if (hasOther) lines.push(`ip link set ${found} address ${macAddress}`);
  if (found !== name) lines.push(`ip link set ${found} name ${name}`);
  lines.push(`ip link set ${name} mtu ${mtu} up`);
  for (const address of addresses) lines.push(`ip addr add ${checked(address, RANGE, "range")} dev ${name}`);
  return lines;
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
