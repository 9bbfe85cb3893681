/** A container's part in the guest: its disks plugged, its root file system mounted, its bundle written; and the way back. */
import type { AgentRequest, CallOptions } from "../agent-client/index.ts";
import { BelljarError, messageChain, sandboxLimits } from "../base/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { giveDevices } from "./device-nodes.ts";
import { recordDirectVolumes } from "./direct-volumes.ts";
import { LAYER, SWAP, WRITABLE } from "./disk-names.ts";
import { growDiskOf, grown } from "./growth.ts";
import type { ContainerHost } from "./host.ts";
import { guestMounts, sharedDisks } from "./mount-place.ts";
import { plugPciDevices } from "./pci-devices.ts";
import { Rollback } from "./rollback.ts";
import { plugShared, unplugShared } from "./shared-directories.ts";
import { buildSpec } from "./spec.ts";
import type { ContainerState, HostSandbox } from "./state.ts";

/** All or nothing: what was done is undone in reverse order when a later step fails. */
export async function enterGuest(host: ContainerHost, container: ContainerState, signal?: AbortSignal): Promise<void> {
  const { sandbox, copies } = host;
  const { id, disks, mounts = [] } = container;
  const rollback = new Rollback(sandbox.log);
  using _hold = host.mounts.hold(sandbox.id, sharedDisks(container));
  try {
    await recordDirectVolumes(host, container);
    for (const disk of disks) {
      await sandbox.plugDisk(disk, id);
      rollback.add(`unplug disk ${disk.serial}`, () => sandbox.unplugDisk(disk.serial, id));
    }
    await growDiskOf(sandbox, container);
    await plugShared(sandbox, container, rollback, signal);
    await sandbox.agent(signal);
    rollback.add("take the container's devices away", () => sandbox.devices.removeAllOf(id));
    const devices = await giveDevices(sandbox, container, signal);
    const pci = await plugPciDevices(sandbox, container, signal);
    // An answer that is lost, or comes too late, may have been a success.
    rollback.add("take the container out of the guest", async () => {
      await sandbox.call("removeContainer", { containerId: id });
    });
    const { settings } = sandbox.state;
    const spec = buildSpec(container.imageConfig, {
      ...container.config,
      annotations: { ...container.config.annotations, ...pci.annotations },
      limits: container.limits,
      pidsLimit: undefined,
      hostname: settings.hostname,
      placedMounts: mounts,
    });
    const swap = disks.find((disk) => disk.serial.startsWith(SWAP));
    await sandbox.call(
      "createContainer",
      {
        containerId: id,
        specJson: Buffer.from(JSON.stringify(spec)),
        rootfs: rootfsOf(container),
        user: container.config.user ?? container.imageConfig.user,
        shareMemory: settings.sharedMemoryBytes !== undefined && container.config.shmBytes === undefined,
        sharePids: settings.sharePids,
        keepAlive: container.config.keepAlive === true && container.config.command === undefined,
        pciDevices: pci.functions.map(({ path, hostAddress }) => ({ path: [...path], hostAddress })),
        ...(swap === undefined ? {} : { swap: { serial: swap.serial } }),
        ...(container.swappiness === undefined ? {} : { swappiness: container.swappiness }),
        mounts: guestMounts(id, mounts, disks),
        devices,
      },
      { signal, timeoutMs: sandboxLimits.launchCallTimeoutMs },
    );
    await copies.fill(id, mounts, signal);
    await sandbox.update((state) => ({
      ...state,
      vm: sandbox.machine.vm.save(),
      containers: state.containers.map((each) => (each.id === id ? entered(each) : each)),
    }));
    copies.watch(id, mounts);
  } catch (thrown) {
    throw await rollback.fail(thrown);
  }
}

/**
 * Ends what still runs and takes the container out of the guest. Each step is done whatever became of the one before; the first
 * error is thrown at the end. May be repeated.
 */
export async function leaveGuest(
  sandbox: HostSandbox,
  container: ContainerState,
  options: CallOptions = {},
): Promise<void> {
  const errors: unknown[] = [];
  const step = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      errors.push(error);
    }
  };
  await step(() => sandbox.call("removeContainer", { containerId: container.id }, options));
  // A disk that the guest still has mounted must stay, or its file system would be torn.
  if (errors.length === 0) {
    await step(() => sandbox.devices.removeAllOf(container.id));
    for (const disk of container.disks) await step(() => sandbox.unplugDisk(disk.serial, container.id));
    await step(() => unplugShared(sandbox, container));
  }
  const [first, ...others] = errors;
  for (const error of others) sandbox.log.warn("a further step failed", { cause: messageChain(error).join(": ") });
  if (errors.length > 0) throw BelljarError.from(first);
}

/** That it is there is all that its creation was for; a start has only begun. */
function entered(container: ContainerState): ContainerState {
  const pending = container.pending?.operation === "create" ? undefined : container.pending;
  return { ...grown(container), inGuest: true, frozen: false, pending };
}

function rootfsOf({ disks, storage, root }: ContainerState): NonNullable<AgentRequest<"createContainer">["rootfs"]> {
  const fileSystem = root?.fileSystem ?? "";
  // It stands first, before disks of mounts.
  if (root?.kind === "disk") return { root: { serial: disks[0]?.serial ?? "", fileSystem } };
  const layers = disks.filter((disk) => disk.serial.startsWith(LAYER)).map(({ serial }) => ({ serial, fileSystem }));
  if (storage?.kind === "tmpfs") return { layers, tmpfsBytes: BigInt(storage.growingToBytes ?? storage.sizeBytes) };
  const writable = { serial: serialOf(disks, WRITABLE) };
  return { layers, writable, writableHasGrown: storage?.growingToBytes !== undefined };
}

function serialOf(disks: readonly DiskConfig[], prefix: string): string {
  const found = disks.find((disk) => disk.serial.startsWith(prefix));
  if (found === undefined) throw new BelljarError("INTERNAL", `the container has no disk ${prefix}`);
  return found.serial;
}
