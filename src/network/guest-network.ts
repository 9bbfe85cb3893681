/** What a guest is told of its network, and what it tells: interfaces, routes, neighbours. */
import { isIP } from "node:net";
import { BelljarError, type Field, networkLimits } from "../base/index.ts";
import { MAC_ADDRESS } from "./addresses.ts";

export interface GuestInterface {
  readonly name: string;
  /** The device in the VM that it belongs to. */
  readonly nic: string;
  readonly macAddress: string;
  readonly mtu: number;
  /** Each with its prefix. */
  readonly addresses: readonly string[];
}

export interface GuestRoute {
  readonly interfaceName: string;
  /** `default`, or a range. */
  readonly destination: string;
  /** What is on the link itself has none. */
  readonly gateway?: string | undefined;
}

export interface GuestNeighbour {
  readonly interfaceName: string;
  readonly address: string;
  readonly macAddress: string;
}

export interface GuestNetwork {
  readonly interfaces: readonly GuestInterface[];
  readonly routes: readonly GuestRoute[];
  readonly neighbours: readonly GuestNeighbour[];
}

/** Nothing that the guest's shell or `ip` could take for more than a name. */
export const GUEST_INTERFACE = /^[a-z][a-z0-9]{0,14}$/;

/** An address of either family with its prefix. */
export function isRange(text: string): boolean {
  const [, address = "", digits = ""] = /^([0-9a-f.:]{2,45})\/(\d{1,3})$/.exec(text) ?? [];
  const family = isIP(address);
  return family !== 0 && Number(digits) <= (family === 4 ? 32 : 128);
}

export function isAddress(text: string): boolean {
  return /^[0-9a-f.:]{2,45}$/.test(text) && isIP(text) !== 0;
}

export function isGuestRoute({ interfaceName, destination, gateway }: GuestRoute): boolean {
  if (!GUEST_INTERFACE.test(interfaceName) || (gateway !== undefined && !isAddress(gateway))) return false;
  if (destination !== "default" && !isRange(destination)) return false;
  // Both of one family; a default route without a gateway is IPv4's.
  return gateway === undefined || destination === "default" || gateway.includes(":") === destination.includes(":");
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkGuestRoutes(routes: readonly GuestRoute[], interfaces: readonly string[]): readonly GuestRoute[] {
  if (routes.length > networkLimits.routesMax) {
    throw new BelljarError("INVALID_ARGUMENT", `${routes.length} routes are too many`, {
      facts: { max: networkLimits.routesMax },
    });
  }
  for (const route of routes) {
    if (!isGuestRoute(route)) {
      const text = JSON.stringify(route).slice(0, 200);
      throw new BelljarError("INVALID_ARGUMENT", `${text} is no route`, {
        remedy:
          "Name an interface, a range such as 10.0.0.0/8 or `default`, and the gateway's address where there is one.",
      });
    }
    if (!interfaces.includes(route.interfaceName)) {
      throw new BelljarError("INVALID_ARGUMENT", `the sandbox has no interface ${route.interfaceName}`, {
        facts: { interfaces: interfaces.join(", ") },
      });
    }
  }
  return routes.map(({ interfaceName, destination, gateway }) => ({ interfaceName, destination, gateway }));
}

export function decodeGuestRoute(field: Field): GuestRoute {
  const route = {
    interfaceName: field.field("interfaceName").string({ pattern: GUEST_INTERFACE }),
    destination: field.field("destination").string({ maxLength: 64 }),
    gateway: field.field("gateway").optional((text) => text.string({ maxLength: 45 })),
  };
  if (isGuestRoute(route)) return route;
  throw field.expected("a route");
}

export function decodeGuestNeighbour(field: Field): GuestNeighbour {
  const address = field.field("address").string({ maxLength: 45 });
  if (!isAddress(address)) throw field.expected("a neighbour");
  return {
    interfaceName: field.field("interfaceName").string({ pattern: GUEST_INTERFACE }),
    address,
    macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }),
  };
}
