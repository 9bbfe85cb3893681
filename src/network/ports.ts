/** Published ports: connections to a port of the host that end at a port of the guest. */
import { isIP } from "node:net";
import { BelljarError, type Field, networkLimits } from "../base/index.ts";
import { IPV4 } from "./addresses.ts";

export const protocols = ["tcp", "udp"] as const;
export type Protocol = (typeof protocols)[number];

export interface PortConfig {
  /** Of the host; all of its IPv4 addresses unless told. */
  readonly hostAddress?: string | undefined;
  /** A free one unless told, and for 0. */
  readonly hostPort?: number | undefined;
  readonly containerPort: number;
  /** `tcp` unless told. */
  readonly protocol?: Protocol | undefined;
}

/** With its defaults filled in; a `hostPort` of 0 is still to be chosen. */
export interface PublishedPort {
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: Protocol;
}

export const EVERY_ADDRESS = "0.0.0.0";

const SHAPE = /^(?:(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:.]+\]|):)?(?:(\d*(?:-\d+)?):)?(\d+(?:-\d+)?)(?:\/(\w+))?$/;

/**
 * Reads `[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`; host and container may be ranges of the same length, and a host's port that is left
 * out or 0 is a free one.
 * @throws BelljarError `INVALID_ARGUMENT`
 */
export function parsePort(text: string): PortConfig[] {
  const found = SHAPE.exec(text);
  if (found === null) throw malformed(text);
  const [, address = "", host = "", container = "", word = "tcp"] = found;
  const protocol = protocols.find((each) => each === word);
  if (protocol === undefined) throw malformed(text);
  const [first, last] = readRange(container, text);
  const [hostFirst, hostLast] = host === "" || host === "0" ? [0, last - first] : readRange(host, text);
  if (hostLast - hostFirst !== last - first) {
    throw new BelljarError("INVALID_ARGUMENT", `the ranges of ${JSON.stringify(text)} have different lengths`);
  }
  const hostAddress = address.replaceAll(/[[\]]/g, "");
  return Array.from({ length: last - first + 1 }, (_, index) => ({
    ...(hostAddress === "" ? {} : { hostAddress }),
    hostPort: hostFirst === 0 ? 0 : hostFirst + index,
    containerPort: first + index,
    protocol,
  }));
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settlePorts(ports: readonly PortConfig[]): PublishedPort[] {
  if (ports.length > networkLimits.portsMax) {
    throw new BelljarError("INVALID_ARGUMENT", `${ports.length} ports are too many to publish`, {
      facts: { max: networkLimits.portsMax },
    });
  }
  const settled = ports.map((port): PublishedPort => {
    const { hostAddress = EVERY_ADDRESS, hostPort = 0, containerPort, protocol = "tcp" } = port;
    checkPort(hostPort, 0);
    checkPort(containerPort, 1);
    if (!protocols.includes(protocol)) {
      throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(protocol)} is not ${protocols.join(" or ")}`);
    }
    if (!IPV4.test(hostAddress)) {
      const isV6 = isIP(hostAddress) === 6;
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `ports cannot be published on ${isV6 ? "the IPv6 address" : "the address"} ${JSON.stringify(hostAddress)}`,
        { remedy: "Use an IPv4 address of the host." },
      );
    }
    return { hostAddress, hostPort, containerPort, protocol };
  });
  const seen = new Set<string>();
  for (const { hostPort, protocol } of settled.filter((port) => port.hostPort !== 0)) {
    const number = `${hostPort}/${protocol}`;
    // On its way in a port is known by its number alone.
    if (seen.has(number)) throw new BelljarError("INVALID_ARGUMENT", `the port ${number} is to be published twice`);
    seen.add(number);
  }
  return settled;
}

/** Both cannot be had on one host. */
export function collide(one: PublishedPort, other: PublishedPort): boolean {
  if (one.hostPort === 0 || one.hostPort !== other.hostPort || one.protocol !== other.protocol) return false;
  return [one.hostAddress, other.hostAddress].includes(EVERY_ADDRESS) || one.hostAddress === other.hostAddress;
}

/** For an error: `127.0.0.1:8080/tcp`. */
export function portText({ hostAddress, hostPort, protocol }: PublishedPort): string {
  return `${hostAddress}:${hostPort}/${protocol}`;
}

export function decodePublishedPort(field: Field): PublishedPort {
  return {
    hostAddress: field.field("hostAddress").string({ pattern: IPV4 }),
    hostPort: field.field("hostPort").integer({ min: 0, max: 65_535 }),
    containerPort: field.field("containerPort").integer({ min: 1, max: 65_535 }),
    protocol: field.field("protocol").oneOf(protocols),
  };
}

function readRange(text: string, whole: string): readonly [number, number] {
  const [first = 0, last = first] = text.split("-").map(Number);
  if (last < first || last > 65_535 || last - first >= networkLimits.portsMax) throw malformed(whole);
  return [first, last];
}

function checkPort(port: number, min: number): void {
  if (Number.isInteger(port) && port >= min && port <= 65_535) return;
  throw new BelljarError("INVALID_ARGUMENT", `${port} is no port that can be published`, {
    facts: { min, max: 65_535 },
  });
}

function malformed(text: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 80))} does not say what to publish`, {
    remedy: `Write [ADDRESS:][HOST:]CONTAINER[/tcp|udp], such as 8080:80 or 127.0.0.1:5000-5009:5000-5009; at most ${networkLimits.portsMax} ports.`,
  });
}
