/** Devices as users type them. */
import { resolve } from "node:path";
import { BelljarError } from "../base/index.ts";
import type { ContainerDeviceConfig, DeviceRequest } from "../sdk/index.ts";
import { parseBytes, parseCount } from "./quantities.ts";

/** `SRC[:DST[:rwm]]`, as docker has it; `SRC:rwm` too. */
export function parseContainerDevice(text: string, here: string): ContainerDeviceConfig {
  const [source = "", second, third, ...rest] = text.split(":");
  const isAccess = (word: string | undefined): boolean => word !== undefined && /^[rwm]{1,3}$/.test(word);
  const access = isAccess(third) ? third : third === undefined && isAccess(second) ? second : undefined;
  const isWrong = source === "" || rest.length > 0 || (third !== undefined && access === undefined);
  if (isWrong || second === "") {
    throw new BelljarError("INVALID_ARGUMENT", `--device ${JSON.stringify(text.slice(0, 120))} is not SRC[:DST[:rwm]]`);
  }
  const containerPath = second === access ? undefined : second;
  return { path: resolve(here, source), containerPath, access };
}

export interface DeviceOptions {
  readonly kind?: DeviceRequest["kind"];
  readonly socket?: string;
  readonly tag?: string;
  readonly mac?: string;
  readonly vfio?: string;
  readonly switchPort?: boolean;
  readonly readOnly?: boolean;
  readonly format?: "raw" | "qcow2";
  readonly driver?: "virtio-scsi" | "virtio-blk";
  readonly direct?: boolean;
  readonly noFlush?: boolean;
  readonly readBps?: string;
  readonly writeBps?: string;
  readonly readIops?: string;
  readonly writeIops?: string;
}

const RATE_MAX = 2 ** 50;

/** A path alone is a disk. */
export function deviceRequest(given: string | undefined, options: DeviceOptions, here: string): DeviceRequest {
  const kind = options.vfio === undefined ? (options.kind ?? "block") : "vfio";
  const path = given === undefined ? undefined : resolve(here, given);
  const socketPath = options.socket === undefined ? undefined : resolve(here, options.socket);
  const { readOnly, format, driver, tag, mac } = options;
  const need = <T>(value: T | undefined, what: string): T => {
    if (value !== undefined) return value;
    throw new BelljarError("INVALID_ARGUMENT", `a ${kind} device needs ${what}`);
  };
  switch (kind) {
    case "block": {
      const { direct = false, noFlush = false } = options;
      const cache = direct || noFlush ? { cache: { direct, noFlush } } : {};
      return { kind, path: need(path, "a path"), readOnly, format, driver, ...cache, ...ratesOf(options) };
    }
    case "vfio":
      return { kind, source: need(options.vfio ?? given, "an address"), behindSwitch: options.switchPort };
    case "generic":
      return { kind, path: need(path, "a path") };
    case "vhost-user-blk":
      return { kind, path, socketPath, readOnly, format };
    case "vhost-user-scsi":
      return { kind, socketPath: need(socketPath, "--socket") };
    case "vhost-user-net":
      return { kind, socketPath: need(socketPath, "--socket"), macAddress: mac };
    case "vhost-user-fs":
      return { kind, tag: need(tag, "--tag"), directory: path, socketPath, readOnly };
  }
}

function ratesOf(options: DeviceOptions): Pick<Extract<DeviceRequest, { kind: "block" }>, "rates"> {
  const { readBps, writeBps, readIops, writeIops } = options;
  const count = (text: string, flag: string): number => parseCount(text, flag, { min: 1, max: RATE_MAX });
  const rates = {
    ...(readBps === undefined ? {} : { readBytesPerSecond: parseBytes(readBps, "--read-bps") }),
    ...(writeBps === undefined ? {} : { writeBytesPerSecond: parseBytes(writeBps, "--write-bps") }),
    ...(readIops === undefined ? {} : { readsPerSecond: count(readIops, "--read-iops") }),
    ...(writeIops === undefined ? {} : { writesPerSecond: count(writeIops, "--write-iops") }),
  };
  return Object.keys(rates).length === 0 ? {} : { rates };
}
