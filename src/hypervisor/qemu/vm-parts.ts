/** A configuration with everything that was left open settled: places of disks and devices, numbers of ports, names of files. */
import { vmmLimits } from "../../base/index.ts";
import type { VmConfig } from "../interface.ts";
import { place } from "./placement.ts";
import { checkPorts } from "./ports.ts";
import { checkMemoryShared, type QemuVm, type QemuVmParts } from "./qemu-vm.ts";
import { runFiles } from "./run-files.ts";

type SettledParts = Omit<QemuVmParts, "process" | "qmp" | "console" | "log">;

/** @throws BelljarError `INVALID_ARGUMENT`, `TOO_MANY_DEVICES` */
export function partsOf(config: VmConfig): SettledParts {
  const { id, runDir, acceleration, memoryMib, cpus, memoryMaxMib, cpusMax, pluggedCpus = 0, memoryFile } = config;
  const ports = checkPorts(config.ports ?? vmmLimits.portsDefault);
  const switchPorts = checkPorts(config.switchPorts ?? 0, vmmLimits.switchPortsMax);
  const sharedMemory = config.sharedMemory === true;
  // Overlays are put over a running VM's disks; one that is started has what they came to.
  const wanted = config.disks.map(({ overlays: _, joined: __, ...disk }) => disk);
  const { disks, devices } = place({ ...config, disks: wanted }, ports, undefined, switchPorts);
  for (const device of devices) checkMemoryShared(device, sharedMemory);
  return {
    id,
    runDir,
    acceleration,
    memoryMib,
    cpus,
    memoryMaxMib,
    cpusMax,
    sharedMemory,
    wakePort: config.wakePort === true,
    ports,
    switchPorts,
    memoryFile,
    plugged: { memoryMib: 0, cpus: pluggedCpus },
    disks,
    devices,
    files: runFiles(runDir),
  };
}

/** One whose device state was loaded, which may have brought more memory and CPUs. It is ended when it does not say. */
export async function sized(vm: QemuVm): Promise<QemuVm> {
  try {
    await vm.size();
    return vm;
  } catch (error) {
    await vm.kill();
    throw error;
  }
}
