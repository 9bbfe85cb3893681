/** PCI devices of the host on their way into the guest with a container. */
import { controlFirst } from "../devices/index.ts";
import { type GuestPciDevices, noPort } from "../sandbox/index.ts";
import type { ContainerState, HostSandbox } from "./state.ts";

const CONTROL_DEVICE = "/dev/vfio/vfio";

/** They are the container's until `removeAllOf`, those before one that fails too. */
export async function plugPciDevices(
  sandbox: HostSandbox,
  container: ContainerState,
  signal: AbortSignal | undefined,
): Promise<GuestPciDevices> {
  const { id, config } = container;
  const { coldPlug, hotPlug } = sandbox.vfioSettings;
  for (const source of controlFirst(config.pciDevices ?? [], (each) => each)) {
    if (source === CONTROL_DEVICE) continue;
    const port = coldPlug === "no-port" ? hotPlug : coldPlug;
    const request = { kind: "vfio", source, behindSwitch: port === "switch-port" } as const;
    if (hotPlug === "no-port" && !(await sandbox.devices.has(request))) throw noPort();
    await sandbox.devices.add(request, { holder: id, signal });
  }
  return await sandbox.pciDevicesOf(id);
}

/** What the next VM is to have from its first instant. */
export async function reservePciDevices(sandbox: HostSandbox, sources: readonly string[]): Promise<void> {
  const { coldPlug } = sandbox.vfioSettings;
  if (coldPlug === "no-port") return;
  for (const source of controlFirst(sources, (each) => each)) {
    if (source === CONTROL_DEVICE) continue;
    await sandbox.devices.reserve({ kind: "vfio", source, behindSwitch: coldPlug === "switch-port" });
  }
  await sandbox.update((state) => ({ ...state }));
}
