/** A guest's memory and device state, into a QEMU that was started for it. */
import type { LoadOptions, StartOptions } from "../interface.ts";
import { expectDevices, loadDevices } from "./device-state.ts";
import type { GrowthLine } from "./growth-arguments.ts";
import type { Launched } from "./launch.ts";
import { findMemoryBlocks } from "./memory-blocks.ts";

/** What may be left to the caller of `start` too: a guest is booted without it. */
export type GuestSource = Pick<LoadOptions, "loadDevicesFrom"> & Pick<StartOptions, "loadDevicesAt" | "fillMemory">;

/** The VM is paused when it resolves. @throws BelljarError `VMM_START_FAILED`, `VMM_DIED`, `VMM_PROTOCOL`, `CANCELLED` */
export async function loadGuest(
  { process, qmp }: Pick<Launched, "process" | "qmp">,
  { loadDevicesFrom: path, loadDevicesAt: at = 0, fillMemory }: GuestSource,
  line: GrowthLine,
  incomingSocket: string,
  signal: AbortSignal,
): Promise<void> {
  if (fillMemory !== undefined) await fillMemory(process.identity, await findMemoryBlocks(qmp, line));
  await expectDevices(qmp, signal);
  await loadDevices(qmp, incomingSocket, { path, at }, signal);
}
