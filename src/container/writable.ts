/** Where a container writes: a disk of its own, or memory of the guest. What is asked for, and what is kept of it. */
import { BelljarError, type Field, sandboxLimits } from "../base/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { WRITABLE } from "./disk-names.ts";

export const storageKinds = ["disk", "tmpfs"] as const;
export type StorageKind = (typeof storageKinds)[number];

export interface StorageOptions {
  /** A disk unless told. What is in memory is gone when the container stops. */
  readonly storage?: StorageKind | undefined;
  /** At most so much can be written; nothing of it is taken before it is used. */
  readonly storageBytes?: number | undefined;
}

export interface StorageState {
  readonly kind: StorageKind;
  /** What the file system that the container writes to has, or is about to have. */
  readonly sizeBytes: number;
  /** It is being made so large, or will be when the container next gets into a guest. */
  readonly growingToBytes?: number | undefined;
}

const MIB = 1024 * 1024;

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleStorage(options: StorageOptions, memoryMib: number): StorageState {
  const kind = options.storage ?? "disk";
  // Half of the memory is what tmpfs takes by itself.
  const usual = kind === "disk" ? sandboxLimits.storageDefaultBytes : (memoryMib * MIB) / 2;
  return { kind, sizeBytes: checkedSize(options.storageBytes ?? usual) };
}

/** Whole MiB, rounded up: few sizes, so that few disks differ. */
export function checkedSize(sizeBytes: number): number {
  const { storageMinBytes, storageMaxBytes } = sandboxLimits;
  if (Number.isInteger(sizeBytes) && sizeBytes >= storageMinBytes && sizeBytes <= storageMaxBytes) {
    return Math.ceil(sizeBytes / MIB) * MIB;
  }
  throw new BelljarError("INVALID_ARGUMENT", `${sizeBytes} bytes is no size for what a container writes`, {
    facts: { sizeBytes, minBytes: storageMinBytes, maxBytes: storageMaxBytes },
    remedy: `Ask for ${storageMinBytes / MIB} MiB to ${storageMaxBytes / MIB} MiB.`,
  });
}

interface Stored {
  readonly storage?: StorageState | undefined;
  readonly disks: readonly DiskConfig[];
}

/** Of a container that was made before sizes were kept, the usual one; undefined for one whose root is a disk that was handed in. */
export function storageOf({ storage, disks }: Stored): StorageState | undefined {
  if (storage !== undefined) return storage;
  const hasOwn = disks.some(({ serial }) => serial.startsWith(WRITABLE));
  return hasOwn ? { kind: "disk", sizeBytes: sandboxLimits.storageDefaultBytes } : undefined;
}

export function decodeStorage(field: Field): StorageState {
  const growingToBytes = field.field("growingToBytes").optional((size) => size.integer({ min: 1 }));
  return {
    kind: field.field("kind").oneOf(storageKinds),
    sizeBytes: field.field("sizeBytes").integer({ min: 1 }),
    ...(growingToBytes === undefined ? {} : { growingToBytes }),
  };
}
