/**
 * What the guest's kernel is asked to change of its network: requests of rtnetlink, each of which it answers. Numbers and structures are
 * those of Linux's headers (rtnetlink.h, if_link.h, if_addr.h, neighbour.h), little-endian as on every machine that a guest is made for.
 * Addresses are such as `isIP` knows; what else is in them is for the caller to have checked.
 */

/** Interfaces go by the kernel's number. */
export interface LinkChange {
  readonly index: number;
  readonly macAddress?: string | undefined;
  readonly mtu?: number | undefined;
}

export interface LinkAddress {
  readonly index: number;
  /** With its prefix. */
  readonly address: string;
}

export interface LinkRoute {
  readonly index: number;
  /** `default`, or a range. */
  readonly destination: string;
  /** What is on the link itself has none. */
  readonly gateway?: string | undefined;
}

export interface LinkNeighbour {
  readonly index: number;
  readonly address: string;
  readonly macAddress: string;
}

type Change = "set" | "remove";
type Attribute = readonly [type: number, value: Uint8Array];

const HEADER_BYTES = 16;
const [REQUEST, ACKNOWLEDGE, REPLACE, CREATE] = [1, 4, 0x100, 0x400];
const NEW_LINK = 16;
const ADDRESS = { set: 20, remove: 21 } as const;
const ROUTE = { set: 24, remove: 25 } as const;
const NEIGHBOUR = { set: 28, remove: 29 } as const;
const [INET, INET6] = [2, 10];
const [IFLA_ADDRESS, IFLA_MTU] = [1, 4];
const [IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD] = [1, 2, 2];
const [RTA_DST, RTA_OIF, RTA_GATEWAY] = [1, 4, 5];
const [RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST] = [254, 3, 1];
const SCOPE = { universe: 0, link: 253, any: 255 } as const;
const [NDA_DST, NDA_LLADDR, NUD_PERMANENT] = [1, 2, 0x80];

/** What is not said stays as it is. */
export function linkRequest({ index, macAddress, mtu }: LinkChange): Buffer {
  const about = Buffer.alloc(16);
  about.writeInt32LE(index, 4);
  const attributes: Attribute[] = [];
  if (macAddress !== undefined) attributes.push([IFLA_ADDRESS, macBytes(macAddress)]);
  if (mtu !== undefined) attributes.push([IFLA_MTU, numberBytes(mtu)]);
  return request(NEW_LINK, 0, about, attributes);
}

/** One of IPv6 is there at once: nobody else on the link is asked whether it has it. */
export function addressRequest(change: Change, { index, address: range }: LinkAddress): Buffer {
  const [address = "", prefix = ""] = range.split("/");
  const family = familyOf(address);
  const about = Buffer.of(family, Number(prefix), family === INET6 && change === "set" ? IFA_F_NODAD : 0, 0);
  const bytes = addressBytes(address);
  return request(ADDRESS[change], flagsOf(change), Buffer.concat([about, numberBytes(index)]), [
    [IFA_LOCAL, bytes],
    [IFA_ADDRESS, bytes],
  ]);
}

/** `default` without a gateway is IPv4's. */
export function routeRequest(change: Change, { index, destination, gateway }: LinkRoute): Buffer {
  const isDefault = destination === "default";
  const [base = "", prefix = ""] = isDefault ? ["", "0"] : destination.split("/");
  const family = familyOf(isDefault ? (gateway ?? "") : base);
  const scope = family === INET ? scopeOf(change, gateway) : SCOPE.universe;
  const [protocol, type] = change === "remove" ? [0, 0] : [RTPROT_BOOT, RTN_UNICAST];
  const about = Buffer.of(family, Number(prefix), 0, 0, RT_TABLE_MAIN, protocol, scope, type, 0, 0, 0, 0);
  const attributes: Attribute[] = [];
  if (!isDefault) attributes.push([RTA_DST, addressBytes(base)]);
  if (gateway !== undefined) attributes.push([RTA_GATEWAY, addressBytes(gateway)]);
  return request(ROUTE[change], flagsOf(change), about, [...attributes, [RTA_OIF, numberBytes(index)]]);
}

function scopeOf(change: Change, gateway: string | undefined): number {
  if (change === "remove") return SCOPE.any;
  return gateway === undefined ? SCOPE.link : SCOPE.universe;
}

/** One that is set is known for good. */
export function neighbourRequest(change: Change, { index, address, macAddress }: LinkNeighbour): Buffer {
  const about = Buffer.alloc(12);
  about.writeUInt8(familyOf(address), 0);
  about.writeInt32LE(index, 4);
  about.writeUInt16LE(NUD_PERMANENT, 8);
  const attributes: Attribute[] = [[NDA_DST, addressBytes(address)]];
  if (change === "set") attributes.push([NDA_LLADDR, macBytes(macAddress)]);
  return request(NEIGHBOUR[change], flagsOf(change), about, attributes);
}

/** What is there already becomes what is asked for. */
function flagsOf(change: Change): number {
  return change === "set" ? CREATE | REPLACE : 0;
}

function request(type: number, flags: number, about: Buffer, attributes: readonly Attribute[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  const message = Buffer.concat([header, about, ...attributes.map(attributeBytes)]);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(type, 4);
  message.writeUInt16LE(flags | REQUEST | ACKNOWLEDGE, 6);
  return message;
}

/** The next one begins where a number may. */
function attributeBytes([type, value]: Attribute): Buffer {
  const bytes = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(value, 4);
  return bytes;
}

function numberBytes(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(":", ""), "hex");
}

function familyOf(address: string): number {
  return address.includes(":") ? INET6 : INET;
}

/** As it is on the wire: 4 bytes or 16. */
export function addressBytes(text: string): Buffer {
  if (familyOf(text) === INET) return Buffer.from(text.split(".").map(Number));
  // In groups alone, the longest run of zeros left out.
  const [before = "", after] = new URL(`http://[${text}]/`).hostname.slice(1, -1).split("::");
  const [first, last] = [groupsOf(before), groupsOf(after ?? "")];
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => "0");
  return Buffer.from([...first, ...zeros, ...last].map((group) => group.padStart(4, "0")).join(""), "hex");
}

function groupsOf(text: string): readonly string[] {
  return text === "" ? [] : text.split(":");
}
