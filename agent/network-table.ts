/** What the guest's kernel says of its network: interfaces and routes, of both families. */
import { existsSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { networkLimits } from "../src/base/limits.ts";
import type { PlannedInterface } from "../src/protocol/wake.ts";

export interface PresentInterface {
  readonly name: string;
  readonly macAddress: string;
  readonly mtu: number;
  readonly up: boolean;
  /** Each with its prefix; link-local ones of IPv6 are the kernel's own, and left out. */
  readonly addresses: readonly string[];
}

export interface PresentRoute {
  readonly interfaceName: string;
  readonly destination: string;
  /** Empty for what is on the link itself. */
  readonly gateway: string;
}

export interface NetworkTableDeps {
  readonly sysDir: string;
  readonly procDir: string;
  readonly addressesOf?: (name: string) => readonly string[];
}

/** All but loopback. */
export async function readInterfaces(deps: NetworkTableDeps): Promise<PresentInterface[]> {
  const dir = join(deps.sysDir, "class/net");
  const found: PresentInterface[] = [];
  for (const name of (await readdir(dir)).filter((each) => each !== "lo").slice(0, networkLimits.interfacesMax)) {
    const read = async (file: string): Promise<string> =>
      (await readFile(join(dir, name, file), "utf8").catch(() => "")).trim();
    found.push({
      name,
      macAddress: await read("address"),
      mtu: Number(await read("mtu")) || 0,
      up: (Number(await read("flags")) & 1) === 1,
      addresses: (deps.addressesOf ?? ownAddresses)(name),
    });
  }
  return found;
}

export function ownAddresses(name: string): readonly string[] {
  return (networkInterfaces()[name] ?? []).flatMap(({ cidr }) =>
    cidr === null || cidr.startsWith("fe80:") ? [] : [cidr],
  );
}

/**
 * Those that are devices of the VM and are up, with all of their addresses, read at once: everything stands still. One without an address
 * is not among them. Undefined when there are more of them, or of addresses of one, than the host is told.
 */
export function plannedInterfaces(sysDir: string, present = networkInterfaces()): PlannedInterface[] | undefined {
  const found = new Map<string, PlannedInterface>();
  for (const [label, infos = []] of Object.entries(present)) {
    // An address of `eth0` may have a label such as `eth0:1`, by which it goes then.
    const [name = ""] = label.split(":");
    const dir = join(sysDir, "class/net", name);
    const [first] = infos;
    if (first === undefined || first.internal || !existsSync(join(dir, "device"))) continue;
    const addresses = [...(found.get(name)?.addresses ?? []), ...infos.flatMap(({ cidr }) => cidr ?? [])];
    const [index, mtu] = ["ifindex", "mtu"].map((file) => Number(textOf(join(dir, file))));
    found.set(name, { index: index ?? 0, name, macAddress: first.mac, mtu: mtu ?? 0, addresses });
    if (addresses.length > networkLimits.presentAddressesMax) return undefined;
  }
  return found.size > networkLimits.interfacesMax ? undefined : [...found.values()];
}

/** Nothing of one that is just being unplugged. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Those that somebody could have set: what the kernel makes of its own for link-local addresses and multicast is left out. */
export async function readRoutes({ procDir }: Pick<NetworkTableDeps, "procDir">): Promise<PresentRoute[]> {
  const [v4, v6] = await Promise.all(
    ["net/route", "net/ipv6_route"].map((file) => readFile(join(procDir, file), "utf8").catch(() => "")),
  );
  const routes = [...parseRoutes(v4 ?? ""), ...parseRoutes6(v6 ?? "")];
  return routes.slice(0, networkLimits.routesMax);
}

const [UP, REJECT] = [1, 0x200];

export function parseRoutes(text: string): PresentRoute[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", destination = "", gateway = "", flags = "", , , , mask = ""] = line.split(/\s+/);
    const bits = Number.parseInt(flags, 16);
    if (!/^[0-9A-F]{8}$/.test(destination) || !(bits & UP) || bits & REJECT) return [];
    const prefix = [...Number.parseInt(mask, 16).toString(2)].filter((bit) => bit === "1").length;
    const range = prefix === 0 ? "default" : `${fromHex(destination)}/${prefix}`;
    return [{ interfaceName: name, destination: range, gateway: gateway === "00000000" ? "" : fromHex(gateway) }];
  });
}

/** Flags of routes that are the kernel's own: local and anycast addresses. */
const OF_KERNEL6 = 0x8000_0000 | 0x0010_0000;

export function parseRoutes6(text: string): PresentRoute[] {
  return text.split("\n").flatMap((line) => {
    const [destination = "", digits = "", , , gateway = "", , , , flags = "", name = ""] = line.trim().split(/\s+/);
    if (!/^[0-9a-f]{32}$/.test(destination) || name === "lo" || /^(?:fe80|ff)/.test(destination)) return [];
    const bits = Number.parseInt(flags, 16);
    if (!(bits & UP) || bits & REJECT || bits & OF_KERNEL6) return [];
    const prefix = Number.parseInt(digits, 16);
    const range = prefix === 0 ? "default" : `${fromHex6(destination)}/${prefix}`;
    return [{ interfaceName: name, destination: range, gateway: /^0+$/.test(gateway) ? "" : fromHex6(gateway) }];
  });
}

/** Of the host's byte order, which is the lowest byte first on every machine that a guest is made for. */
function fromHex(hex: string): string {
  return Buffer.from(hex, "hex").reverse().join(".");
}

function fromHex6(hex: string): string {
  const full = (hex.match(/.{4}/g) ?? []).join(":");
  // As the kernel writes it: the longest run of zeros is left out.
  return new URL(`http://[${full}]/`).hostname.slice(1, -1);
}
