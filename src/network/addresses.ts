/** IPv4 addresses and ranges as text and as numbers. */
import { BelljarError } from "../base/index.ts";

/** All addresses that share the first `prefix` bits; the others of `address` are zero. */
export interface Range {
  readonly address: number;
  readonly prefix: number;
}

const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
/** Nothing but four decimal numbers: what else a system takes for an address (`127.1`, `0x7f.1`) is not one here. */
export const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`);
export const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

export function toNumber(text: string): number {
  if (!IPV4.test(text)) throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text)} is no IPv4 address`);
  return text.split(".").reduce((sum, octet) => sum * 256 + Number(octet), 0);
}

export function toText(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

/** `10.0.0.0/8`, or a single address; undefined for what is neither. Bits behind the prefix are dropped. */
export function parseRange(text: string): Range | undefined {
  const [, address = "", length] = /^([\d.]+)(?:\/(\d{1,2}))?$/.exec(text) ?? [];
  const prefix = length === undefined ? 32 : Number(length);
  if (!IPV4.test(address) || prefix > 32) return undefined;
  const size = 2 ** (32 - prefix);
  return { address: Math.floor(toNumber(address) / size) * size, prefix };
}

export function rangeText({ address, prefix }: Range): string {
  return `${toText(address)}/${prefix}`;
}

export function overlaps(one: Range, other: Range): boolean {
  const size = 2 ** (32 - Math.min(one.prefix, other.prefix));
  return Math.floor(one.address / size) === Math.floor(other.address / size);
}
