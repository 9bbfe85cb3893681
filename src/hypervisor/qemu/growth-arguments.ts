/**
 * How a VM that can grow is said to QEMU; docs/decisions/memory-growth.md says why so. Memory: one virtio-mem device, there from the
 * start and empty, so that the command line is the same however large the VM has become. CPUs: under KVM places for those that may
 * come; under TCG, whose QEMU 7.2 corrupts its own memory when CPUs come and go, all of them, of which the guest parks the rest.
 */
import type { Acceleration } from "../interface.ts";
import type { QemuObject } from "./plug-parts.ts";

/** Ids of the device and of the memory behind it. */
export const GROWTH_DEVICE = "growth";
const GROWTH_MEMORY = "growth-ram";

/** At a fixed place: what other devices there are does not move it. The chipset has the place after it. */
const GROWTH_ADDRESS = "1e.0";

/** Memory is plugged in blocks of this size. */
export const GROWTH_BLOCK_MIB = 2;
/** The guest's kernel can only use whole pieces of this size of the device's address range. */
const GUEST_BLOCK_MIB = 128;

export interface GrowthLine {
  readonly acceleration: Acceleration;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  readonly pluggedCpus?: number | undefined;
  /** Programs behind vhost-user devices map the guest's memory, and what it grows by too. */
  readonly sharedMemory?: boolean | undefined;
}

/** Size of the device's address range; 0 when there is to be no such device. */
export function growthRangeMib({ memoryMib, memoryMaxMib = memoryMib }: GrowthLine): number {
  return Math.ceil(Math.max(0, memoryMaxMib - memoryMib) / GUEST_BLOCK_MIB) * GUEST_BLOCK_MIB;
}

/** CPUs that are not in use are there all the same, and the guest keeps them offline. */
export function parksCpus({ acceleration, cpus, cpusMax = cpus }: GrowthLine): boolean {
  return acceleration === "tcg" && cpusMax > cpus;
}

/** What the guest's kernel must know of it. */
export function growthKernelArguments(line: GrowthLine): string[] {
  return parksCpus(line) ? [`maxcpus=${line.cpus}`] : [];
}

export function sizeArguments(line: GrowthLine): string[] {
  const { memoryMib, cpus, cpusMax = cpus } = line;
  const rangeMib = growthRangeMib(line);
  const first = parksCpus(line) ? cpusMax : cpus;
  return [
    "-smp",
    // One core per CPU, in one socket: the place of a CPU is its number.
    cpusMax > cpus ? `cpus=${first},sockets=1,cores=${cpusMax},threads=1,maxcpus=${cpusMax}` : `cpus=${cpus}`,
    "-m",
    `size=${memoryMib}M${rangeMib > 0 ? `,maxmem=${memoryMib + rangeMib}M` : ""}`,
  ];
}

export function growthArguments(line: GrowthLine): string[] {
  const rangeMib = growthRangeMib(line);
  const plugged = parksCpus(line) ? 0 : (line.pluggedCpus ?? 0);
  const cpus = Array.from({ length: plugged }, (_, index) => cpuDevice(line.cpus + index));
  const memory = [
    "-object",
    // Not reserved: the host has no need of it until it is plugged and used.
    JSON.stringify({
      ...(line.sharedMemory === true
        ? { "qom-type": "memory-backend-memfd", share: true }
        : { "qom-type": "memory-backend-ram" }),
      id: GROWTH_MEMORY,
      size: rangeMib * 1024 * 1024,
      merge: false,
      dump: false,
      reserve: false,
    }),
    "-device",
    JSON.stringify({
      driver: "virtio-mem-pci",
      id: GROWTH_DEVICE,
      addr: GROWTH_ADDRESS,
      memdev: GROWTH_MEMORY,
      "requested-size": 0,
    }),
  ];
  return [...cpus.flatMap((device) => ["-device", JSON.stringify(device)]), ...(rangeMib === 0 ? [] : memory)];
}

export function cpuId(place: number): string {
  return `cpu-${place}`;
}

/** The CPU with this number: as `-device`, and for `device_add`. */
export function cpuDevice(place: number): QemuObject {
  return {
    driver: "host-x86_64-cpu",
    id: cpuId(place),
    "socket-id": 0,
    "core-id": place,
    "thread-id": 0,
  };
}
