/** What may be plugged into a VM without the VM's state saying so: its last owner did not live to write it down. */
import type { DeviceConfig, DiskConfig, VmState } from "../hypervisor/interface.ts";

export interface Doubtful {
  readonly disks: readonly DiskConfig[];
  readonly devices: readonly DeviceConfig[];
}

/** What the state says of a disk or device goes before what is thought of it, and later ones before earlier. */
export function withDoubtful(saved: VmState, ...all: readonly Doubtful[]): VmState {
  const disks = new Map(
    [...all.flatMap((each) => each.disks), ...saved.disks].map((disk) => [disk.serial, disk] as const),
  );
  const devices = new Map(
    [...all.flatMap((each) => each.devices), ...(saved.devices ?? [])].map((device) => [device.id, device] as const),
  );
  return { ...saved, disks: [...disks.values()], devices: [...devices.values()] };
}
