/**
 * Live mounts: for each a program on the host that serves the directory, and a device of the VM behind which it is. Both are named
 * by container and mount, so that an owner that comes after one that was killed finds them whatever the state says.
 */
import { mkdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, messageChain, type ProcessIdentity } from "../base/index.ts";
import { endVirtiofsd, findBackEnds, startVirtiofsd } from "../devices/index.ts";
import type { VhostUserFsDevice } from "../hypervisor/interface.ts";
import { changeContainer } from "./container-state.ts";
import type { MountState } from "./mount-config.ts";
import { isSharedDeviceOf, sharedDeviceId } from "./mount-place.ts";
import type { Rollback } from "./rollback.ts";
import type { ContainerState, HostSandbox } from "./state.ts";

interface SharedDirectory {
  readonly mount: MountState;
  /** Among all mounts of the container. */
  readonly index: number;
  readonly device: VhostUserFsDevice;
}

/** All that the VM has or may have for this container. */
export function sharedDevices(container: ContainerState, runDir: string): readonly VhostUserFsDevice[] {
  return sharedDirectories(container, runDir).map(({ device }) => device);
}

/** @throws BelljarError `MOUNT_UNSUPPORTED` when the VM's memory cannot be shared, or of the first step that fails */
export async function plugShared(
  sandbox: HostSandbox,
  container: ContainerState,
  rollback: Rollback,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { runDir, settings } = sandbox.state;
  const directories = sharedDirectories(container, runDir);
  const [first] = directories;
  if (first !== undefined && settings.vhostUser !== true) {
    throw new BelljarError("MOUNT_UNSUPPORTED", `${first.mount.source} cannot be live: the VM was not started for it`, {
      facts: { source: first.mount.source, destination: first.mount.destination },
      remedy:
        "Give the sandbox's first container a live mount, or mount this with how=disk, or read-only with how=copy.",
    });
  }
  for (const { mount, index, device } of directories) {
    rollback.add(`end the sharing of ${mount.source}`, () => unplugOne(sandbox, container.id, index, device));
    const path = await realpath(mount.source);
    const { socketPath } = device;
    const directory = mount.isFile === true ? `${socketPath}.d` : path;
    if (mount.isFile === true) await mkdir(directory, { recursive: true, mode: 0o700 });
    const file = mount.isFile === true ? path : undefined;
    const server = await startVirtiofsd({ socketPath, directory, file, readOnly: mount.readOnly }, signal);
    await setServer(sandbox, container.id, index, server);
    const { machine } = sandbox;
    await machine.whileAlive(machine.vm.plugDevice(device));
  }
}

/** What is not there any more is success; every one is tried. */
export async function unplugShared(sandbox: HostSandbox, container: ContainerState): Promise<void> {
  for (const { index, device } of sharedDirectories(container, sandbox.state.runDir)) {
    await unplugOne(sandbox, container.id, index, device);
  }
}

/** Devices of containers that are not in the guest, and programs that no container of it needs. */
export async function unplugUnusedShared(sandbox: HostSandbox): Promise<void> {
  const { containers, runDir, settings } = sandbox.state;
  if (settings.vhostUser !== true) return;
  const used = containers.filter(({ inGuest }) => inGuest).flatMap((each) => sharedDevices(each, runDir));
  for (const device of sandbox.machine.vm.save().devices ?? []) {
    if (device.kind !== "vhost-user-fs" || !isSharedDeviceOf(device.id)) continue;
    if (used.some(({ id }) => id === device.id)) continue;
    await unplugDevice(sandbox, device.id).catch((error: unknown) => {
      sandbox.log.debug("a directory was not shared after all", { cause: messageChain(error).join(": ") });
    });
  }
  for (const { identity, socketPath } of await findBackEnds(runDir)) {
    const isOurs = isSharedDeviceOf(socketPath.split("/").at(-1) ?? "");
    if (isOurs && !used.some((device) => device.socketPath === socketPath)) await endVirtiofsd(identity, socketPath);
  }
}

async function unplugOne(
  sandbox: HostSandbox,
  containerId: string,
  index: number,
  { id, socketPath }: VhostUserFsDevice,
): Promise<void> {
  await unplugDevice(sandbox, id);
  const container = sandbox.state.containers.find((each) => each.id === containerId);
  const server = container?.mounts?.[index]?.server;
  // One that was started and not written down is found by its command line.
  const servers =
    server === undefined
      ? (await findBackEnds(sandbox.state.runDir)).filter((found) => found.socketPath === socketPath)
      : [{ identity: server }];
  for (const { identity } of servers) await endVirtiofsd(identity, socketPath);
  if (server !== undefined) await setServer(sandbox, containerId, index, undefined);
}

async function unplugDevice({ machine }: HostSandbox, id: string): Promise<void> {
  const isPlugged = machine.vm.save().devices?.some((device) => device.id === id) === true;
  if (isPlugged) await machine.whileAlive(machine.vm.unplugDevice(id));
}

async function setServer(
  sandbox: HostSandbox,
  containerId: string,
  index: number,
  server: ProcessIdentity | undefined,
): Promise<void> {
  await changeContainer(sandbox, containerId, (state) => ({
    ...state,
    mounts: state.mounts?.map((mount, at) => (at === index ? { ...mount, server } : mount)),
  }));
}

function sharedDirectories({ id, mounts = [] }: ContainerState, runDir: string): SharedDirectory[] {
  return mounts.flatMap((mount, index) => {
    if (mount.how !== "live") return [];
    const tag = sharedDeviceId(id, index);
    return [{ mount, index, device: { kind: "vhost-user-fs", id: tag, tag, socketPath: join(runDir, tag) } }];
  });
}
