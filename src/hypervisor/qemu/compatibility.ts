/** What device state depends on, as one digest: the QEMU that wrote it, its command line, and under KVM the host's CPU. */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { release } from "node:os";
import { vmmLimits } from "../../base/index.ts";
import type { HypervisorInfo, MachineTraits, VmConfig } from "../interface.ts";
import { qemuArguments, x86 } from "./arguments.ts";
import { place } from "./placement.ts";
import { checkPorts } from "./ports.ts";
import { runFiles } from "./run-files.ts";

export async function compatibility(info: HypervisorInfo, config: VmConfig): Promise<string> {
  const { size, mtimeMs } = await stat(info.path);
  const cpu = config.acceleration === "kvm" ? await hostCpu() : [];
  return createHash("sha256")
    .update(JSON.stringify([info.version, size, mtimeMs, plainArguments(config), cpu]))
    .digest("hex");
}

export async function traits(info: HypervisorInfo, config: VmConfig): Promise<MachineTraits> {
  return {
    hypervisor: `${info.name} ${info.version}`,
    machine: x86.machine,
    acceleration: config.acceleration,
    cpuFeatures: config.acceleration === "kvm" ? await hostFeatures() : [],
    commandLine: createHash("sha256")
      .update(JSON.stringify(stateArguments(config)))
      .digest("hex"),
  };
}

/** Without how the accelerator goes about its work, of which device state knows nothing: a saved guest outlives a change of that. */
function stateArguments(config: VmConfig): string[] {
  const words = plainArguments(config);
  return words.map((word, index) => (words[index - 1] === "-accel" ? config.acceleration : word));
}

/** The command line, with the same words in place of names and paths. */
function plainArguments(config: VmConfig): string[] {
  const { acceleration, memoryMib, cpus, memoryMaxMib, cpusMax, boot } = config;
  const { sharedMemory = false, wakePort = false, switchPorts = 0 } = config;
  const ports = checkPorts(config.ports ?? vmmLimits.portsDefault);
  const disks = config.disks.map(({ overlays: _, joined: __, ...disk }) => ({ ...disk, path: "/any" }));
  return qemuArguments({
    id: "any",
    files: runFiles("/any"),
    acceleration,
    memoryMib,
    cpus,
    memoryMaxMib,
    cpusMax,
    // What is in the kernel's files is in the guest's memory already; whoever asks knows which ones they are.
    boot: { ...boot, kernelPath: "/any", ...(boot.initrdPath === undefined ? {} : { initrdPath: "/any" }) },
    ...place({ ...config, disks }, ports, undefined, switchPorts),
    sharedMemory,
    wakePort,
    ports,
    switchPorts,
    incoming: true,
  });
}

/** With `-cpu host` the guest has seen what this host's CPU can do, as this host's kernel lets it. */
async function hostCpu(): Promise<string[]> {
  const lines = (await readFile("/proc/cpuinfo", "utf8")).split("\n\n")[0]?.split("\n") ?? [];
  const kept = lines.filter((line) =>
    /^(?:vendor_id|cpu family|model|model name|stepping|microcode|flags)\s*:/.test(line),
  );
  return [release(), ...kept];
}

async function hostFeatures(): Promise<string[]> {
  const line = /^flags\s*: (.*)$/m.exec(await readFile("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  return line.split(" ").filter((word) => word !== "");
}
