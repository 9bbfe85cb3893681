/** Which sandboxes a VM can wait for: those that ask for the same of it. */
import { limitsOf } from "../container/index.ts";
import type { SandboxCreateConfig } from "./interface.ts";

/**
 * Two configurations of one kind start from one template, as far as can be said before there is one; the VM that waits is looked at anyway.
 * Undefined for a sandbox that no VM waits for: one in a namespace of somebody else's.
 */
export function poolKind(config: SandboxCreateConfig): string | undefined {
  if (config.network?.mode === "netns") return undefined;
  const { memoryMib, cpus, memoryMaxMib, cpusMax, acceleration, template, templateDomain, vhostUser, vfio } = config;
  const { memoryBytes, cpus: containerCpus } = limitsOf(config.container ?? {});
  return JSON.stringify([
    ...[memoryMib, cpus, memoryMaxMib, cpusMax, acceleration, template, templateDomain, vhostUser, vfio],
    ...[memoryBytes, containerCpus, config.network?.mode],
  ]);
}
