/**
 * A VM grows or shrinks with its guest: QEMU has more first and the guest takes it, or the guest gives back and QEMU has less. Both
 * are asked what there is afterwards; the guest's word only ever makes an answer worse.
 */
import { BelljarError, messageChain, sandboxLimits } from "../base/index.ts";
import type { Vm, VmSize } from "../hypervisor/interface.ts";
import type { Machine } from "./machine.ts";

export interface ResizeMachineOptions {
  /** Less is wanted, and it is well if the guest does not give it. */
  readonly shrinkIfPossible?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

const MIB = 1024 * 1024;

/** What the VM has, as far as this process knows. */
export function knownSize(vm: Vm): VmSize {
  const { memoryMib, cpus, pluggedMemoryMib = 0, pluggedCpus = 0 } = vm.save();
  return { memoryMib: memoryMib + pluggedMemoryMib, cpus: cpus + pluggedCpus };
}

/**
 * Brings VM and guest to a size. More than there was is all or nothing; so is less, unless nobody insists.
 * @throws BelljarError `RESIZE_REFUSED` by the guest, `NOT_ENOUGH_MEMORY`, `INVALID_ARGUMENT`; it is as large as before then, or as
 * near to that as the guest goes along with
 */
export async function resizeMachine(
  machine: Machine,
  wanted: VmSize,
  options: ResizeMachineOptions = {},
): Promise<VmSize> {
  const before = await machine.whileAlive(machine.vm.size());
  try {
    // Whatever was plugged by somebody who died is online now, and the guest is ready for more.
    await fitGuest(machine, before, options.signal);
    const possible = await makeRoom(machine, before, wanted, options.signal);
    if (possible.memoryMib > roundedUp(machine.vm, wanted.memoryMib) && options.shrinkIfPossible !== true) {
      throw refusedError(before, wanted, possible);
    }
    const after = await resizeVm(machine, possible, options);
    const guest = await fitGuest(machine, after, options.signal);
    const has = { memoryMib: Math.min(after.memoryMib, guest.memoryMib), cpus: Math.min(after.cpus, guest.cpus) };
    const isShort = has.memoryMib < wanted.memoryMib || has.cpus < wanted.cpus;
    const isLarge = after.memoryMib > roundedUp(machine.vm, wanted.memoryMib) || after.cpus > wanted.cpus;
    if (isShort || (isLarge && options.shrinkIfPossible !== true)) throw refusedError(before, wanted, has);
    return after;
  } catch (thrown) {
    await restore(machine, before);
    throw thrown;
  }
}

async function resizeVm(machine: Machine, wanted: VmSize, options: ResizeMachineOptions): Promise<VmSize> {
  const { shrinkIfPossible, signal } = options;
  const timeoutMs = shrinkIfPossible === true ? sandboxLimits.shrinkTimeoutMs : sandboxLimits.resizeTimeoutMs;
  return await machine.whileAlive(machine.vm.resize(wanted, { timeoutMs, signal }));
}

/** Before memory is taken away the guest says how much it can do without; answers the size that can be had. */
async function makeRoom(
  machine: Machine,
  now: VmSize,
  wanted: VmSize,
  signal: AbortSignal | undefined,
): Promise<VmSize> {
  if (wanted.memoryMib >= now.memoryMib) return wanted;
  const { memoryMib: bootMib } = machine.vm.save();
  const pluggedMib = Math.max(0, wanted.memoryMib - bootMib);
  const request = { cpus: now.cpus, pluggedMemoryBytes: BigInt(pluggedMib) * BigInt(MIB), ahead: true };
  const answer = await machine.call("fitResources", request, { signal });
  const neededMib = bootMib + Math.ceil(Number(answer.pluggedMemoryBytes) / MIB);
  return { cpus: wanted.cpus, memoryMib: Math.max(wanted.memoryMib, Math.min(now.memoryMib, neededMib)) };
}

/** Has the guest take what the VM has, and answers what it says that it has. */
async function fitGuest(machine: Machine, size: VmSize, signal: AbortSignal | undefined): Promise<VmSize> {
  const { memoryMib: bootMib } = machine.vm.save();
  const request = { cpus: size.cpus, pluggedMemoryBytes: BigInt(size.memoryMib - bootMib) * BigInt(MIB) };
  const answer = await machine.call("fitResources", request, { signal });
  return { cpus: answer.cpus, memoryMib: bootMib + Number(answer.pluggedMemoryBytes / BigInt(MIB)) };
}

/** After an error, as far as it goes: what remains is in the state all the same. */
async function restore(machine: Machine, before: VmSize): Promise<void> {
  try {
    const possible = await makeRoom(machine, knownSize(machine.vm), before, undefined);
    const after = await resizeVm(machine, possible, { shrinkIfPossible: true });
    await fitGuest(machine, after, undefined);
  } catch (error) {
    machine.log.warn("a VM did not go back to its old size", { cause: messageChain(error).join(": ") });
  }
}

/** QEMU plugs memory in blocks; what was there at boot stays. */
function roundedUp(vm: Vm, memoryMib: number): number {
  const { memoryMib: bootMib } = vm.save();
  return bootMib + Math.max(0, Math.ceil((memoryMib - bootMib) / BLOCK_MIB) * BLOCK_MIB);
}

const BLOCK_MIB = 2;

function refusedError(before: VmSize, wanted: VmSize, has: VmSize): BelljarError {
  const text = ({ memoryMib, cpus }: VmSize): string => `${memoryMib} MiB and ${cpus} CPUs`;
  const way = wanted.memoryMib < before.memoryMib || wanted.cpus < before.cpus ? "give back" : "take";
  return new BelljarError(
    "RESIZE_REFUSED",
    `the guest did not ${way} it all: from ${text(before)} to ${text(wanted)} it came as far as ${text(has)}`,
    {
      facts: {
        memoryMib: before.memoryMib,
        cpus: before.cpus,
        wantedMib: wanted.memoryMib,
        wantedCpus: wanted.cpus,
        reachedMib: has.memoryMib,
        reachedCpus: has.cpus,
      },
    },
  );
}
