/** More room for what a container writes, while it runs or before it runs again. */
import { BelljarError } from "../base/index.ts";
import { changeContainer, stateOf } from "./container-state.ts";
import { WRITABLE } from "./disk-names.ts";
import type { ContainerState, HostSandbox } from "./state.ts";
import { checkedSize, storageOf } from "./writable.ts";

/**
 * Makes room for a container, at once if it is in a guest, otherwise when it next is in one: the intent is written down first,
 * and whoever finds it carries it out.
 * @throws BelljarError `INVALID_ARGUMENT` for less room than there is; what the VMM or the guest failed with, the intent kept
 */
export async function growStorage(sandbox: HostSandbox, id: string, sizeBytes: number): Promise<void> {
  const state = stateOf(sandbox, id);
  const storage = storageOf(state);
  if (storage === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", `the root of container ${id} is a disk that was handed in`, {
      remedy: "Make that disk larger, and its file system, by the means of whoever owns it.",
    });
  }
  const wanted = checkedSize(sizeBytes);
  const now = storage.growingToBytes ?? storage.sizeBytes;
  if (wanted < now) {
    throw new BelljarError("INVALID_ARGUMENT", `container ${id} has ${now} bytes to write to, and cannot get fewer`, {
      facts: { sizeBytes: now, wantedBytes: wanted },
    });
  }
  if (wanted === storage.sizeBytes) return;
  await changeContainer(sandbox, id, (each) => ({ ...each, storage: { ...storage, growingToBytes: wanted } }));
  if (state.inGuest && sandbox.hasMachine) await finishGrowth(sandbox, id);
}

/** Carries out what `growStorage` has written down; may be repeated. */
export async function finishGrowth(sandbox: HostSandbox, id: string): Promise<void> {
  const state = stateOf(sandbox, id);
  const { storage } = state;
  if (storage?.growingToBytes === undefined) return;
  await growDiskOf(sandbox, state);
  await sandbox.call("growStorage", { containerId: id, sizeBytes: BigInt(storage.growingToBytes) });
  await changeContainer(sandbox, id, grown);
}

/** The disk, not what is on it. */
export async function growDiskOf(sandbox: HostSandbox, { storage, disks }: ContainerState): Promise<void> {
  const disk = disks.find(({ serial }) => serial.startsWith(WRITABLE));
  if (storage?.growingToBytes === undefined || disk === undefined) return;
  await sandbox.growDisk(disk.serial, storage.growingToBytes);
}

/** The state of a container that has got the room that it was to get. */
export function grown(state: ContainerState): ContainerState {
  const { storage } = state;
  if (storage?.growingToBytes === undefined) return state;
  return { ...state, storage: { kind: storage.kind, sizeBytes: storage.growingToBytes } };
}
