/** The VM that a state names, as a configuration to start it again. */
import type { GuestImage } from "../guest/index.ts";
import type { BootConfig, VmConfig, VmState } from "../hypervisor/interface.ts";

export function bootOf({ kernelPath, initrdPath, kernelArguments }: GuestImage): BootConfig {
  return { kernelPath, initrdPath, kernelArguments };
}

/** All that device state depends on; where it runs and what it boots is the new VM's. */
export function savedConfig(saved: VmState): Omit<VmConfig, "boot" | "id" | "runDir"> {
  const { acceleration, memoryMib, cpus, memoryMaxMib, cpusMax, pluggedCpus, disks, devices, sharedMemory } = saved;
  const { wakePort, ports, switchPorts } = saved;
  return {
    acceleration,
    memoryMib,
    cpus,
    memoryMaxMib,
    cpusMax,
    pluggedCpus,
    disks,
    ...(devices === undefined ? {} : { devices }),
    ...(sharedMemory === undefined ? {} : { sharedMemory }),
    ...(wakePort === undefined ? {} : { wakePort }),
    ...(ports === undefined ? {} : { ports }),
    ...(switchPorts === undefined ? {} : { switchPorts }),
  };
}
