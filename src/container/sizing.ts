/**
 * The VM follows its containers' limits: it grows before a limit is promised, and shrinks, as far as the guest goes along, when a
 * container needs what it had no more.
 */
import { messageChain } from "../base/index.ts";
import type { VmSize } from "../hypervisor/interface.ts";
import { sizeVm } from "../resources/index.ts";
import type { SandboxSettings } from "../sandbox/index.ts";
import type { ContainerLimits } from "./config.ts";
import type { HostSandbox } from "./state.ts";

/** States of older versions do not say how the size came about: it was as it was. */
const FIXED = { memory: "fixed", cpus: "fixed" } as const;

/** How large the VM should be for containers with these limits. */
export function sizeFor(settings: SandboxSettings, max: VmSize, limits: readonly ContainerLimits[]): VmSize {
  const { memoryMib, cpus, sizing = FIXED } = settings;
  return sizeVm({ rules: sizing, base: { memoryMib, cpus }, max, containers: limits });
}

/** How large it should be as things are; `withId` is one that is about to start. */
export function wantedSize(sandbox: HostSandbox, settings: SandboxSettings, withId?: string): VmSize {
  const { containers } = sandbox.state;
  const limits = containers.filter(({ id, state }) => state !== "stopped" || id === withId).map((each) => each.limits);
  return sizeFor(settings, sandbox.maxSize, limits);
}

/**
 * Has the VM be at least as large as it should be: before anything relies on it.
 * @param limits what a container's limits are about to become
 * @throws BelljarError `RESIZE_REFUSED`, `NOT_ENOUGH_MEMORY`; the VM is as it was
 */
export async function growFor(
  sandbox: HostSandbox,
  id: string,
  options: { readonly limits?: ContainerLimits; readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const { settings, containers } = sandbox.state;
  const needs = containers
    .filter((each) => each.state !== "stopped" || each.id === id)
    .map((each) => (each.id === id ? (options.limits ?? each.limits) : each.limits));
  const wanted = sizeFor(settings, sandbox.maxSize, needs);
  const { size } = sandbox;
  const grown = { memoryMib: Math.max(size.memoryMib, wanted.memoryMib), cpus: Math.max(size.cpus, wanted.cpus) };
  if (grown.memoryMib === size.memoryMib && grown.cpus === size.cpus) return;
  await sandbox.resize(grown, { signal: options.signal });
}

/** Gives back what no container needs any more, as far as it goes; nothing fails for it. */
export async function shrinkToNeed(sandbox: HostSandbox): Promise<void> {
  const { state, pending, vm } = sandbox.state;
  // What ends as a whole, or cannot move, needs no care.
  if (!sandbox.hasMachine || vm === undefined || pending !== undefined || state === "paused") return;
  const { size } = sandbox;
  const wanted = wantedSize(sandbox, sandbox.state.settings);
  const less = {
    memoryMib: Math.max(vm.memoryMib, Math.min(size.memoryMib, wanted.memoryMib)),
    cpus: Math.max(vm.cpus, Math.min(size.cpus, wanted.cpus)),
  };
  // Memory comes in blocks: what is a little more than needed is as little as it can be.
  if (size.memoryMib - less.memoryMib < SLACK_MIB && size.cpus === less.cpus) return;
  try {
    await sandbox.resize(less, { shrinkIfPossible: true });
  } catch (error) {
    sandbox.log.warn("the VM did not become smaller", { cause: messageChain(error).join(": ") });
  }
}

const SLACK_MIB = 2;
