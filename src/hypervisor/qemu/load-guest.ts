/** A guest's memory and device state, into a QEMU that waits for them. */
import type { LoadOptions, StartOptions } from "../interface.ts";
import { loadDevices } from "./device-state.ts";
import type { GrowthLine } from "./growth-arguments.ts";
import type { Launched } from "./launch.ts";
import { findMemoryBlocks } from "./memory-blocks.ts";

/** What may be left to the caller of `start` too: a guest is booted without it. */
export type GuestSource = Pick<LoadOptions, "loadDevicesFrom"> & Pick<StartOptions, "loadDevicesAt" | "fillMemory">;

type Loading = Pick<Launched, "process" | "qmp">;

/** Its memory, which comes before device state and may come before disks and devices. @throws BelljarError `VMM_DIED`, `VMM_PROTOCOL` */
export async function fillGuest(
  { process, qmp }: Loading,
  fillMemory: StartOptions["fillMemory"],
  line: GrowthLine,
): Promise<void> {
  if (fillMemory !== undefined) await fillMemory(process.identity, await findMemoryBlocks(qmp, line));
}

/** The VM is paused when it resolves. @throws BelljarError `VMM_START_FAILED`, `VMM_DIED`, `VMM_PROTOCOL`, `CANCELLED` */
export async function loadGuest(
  loading: Loading,
  { loadDevicesFrom: path, loadDevicesAt: at = 0, fillMemory }: GuestSource,
  line: GrowthLine,
  incomingSocket: string,
  signal: AbortSignal,
): Promise<void> {
  await fillGuest(loading, fillMemory, line);
  await loadDevices(loading.qmp, incomingSocket, { path, at }, signal);
}
