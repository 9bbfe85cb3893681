/** Runs virtual machines. The rest of Belljar knows only `interface.ts` and what is named here. */
export type * from "./interface.ts";
export { type AccelerationProbeDeps, createAccelerationProbe } from "./qemu/acceleration-probe.ts";
export { readAvailableMib } from "./qemu/host-memory.ts";
export { type FoundVmm, findVmmProcesses } from "./qemu/lost-processes.ts";
export { FIRST_SWITCH_PORT, guestPortAddress, guestPortPath } from "./qemu/ports.ts";
export { removeLostProbes } from "./qemu/probe-directory.ts";
export { createQemu, type QemuDeps } from "./qemu/qemu.ts";
export { decodeDeviceConfig, decodeDiskConfig, decodeVmState } from "./state.ts";
