/** On which ports a sandbox takes PCI devices of the host, and what its containers are told of them. */
import { BelljarError, type Field, vmmLimits } from "../base/index.ts";
import { type DeviceState, gpuAnnotations, parseVfioSource, type VfioClaims } from "../devices/index.ts";
import { FIRST_SWITCH_PORT, guestPortPath } from "../hypervisor/index.ts";

export const vfioPorts = ["root-port", "switch-port", "no-port"] as const;
export type VfioPort = (typeof vfioPorts)[number];

export interface VfioSettings {
  /** For devices of containers that are known when the VM starts: they are there from its first instant, until it ends. */
  readonly coldPlug: VfioPort;
  /** For all others: they come and go with their containers. */
  readonly hotPlug: VfioPort;
}

export const VFIO_DEFAULTS: VfioSettings = { coldPlug: "no-port", hotPlug: "root-port" };

/** A function as a container is told of it. */
export interface GuestPciFunction {
  readonly hostAddress: string;
  /** Ports from the guest's root bus down, then the function itself. */
  readonly path: readonly string[];
}

export interface GuestPciDevices {
  readonly functions: readonly GuestPciFunction[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** Where the guest has a holder's devices, and what says which GPU of all is which. */
export async function guestPciDevices(
  claims: VfioClaims,
  devices: readonly DeviceState[],
  holder: string,
): Promise<GuestPciDevices> {
  const plugged = devices.flatMap(({ device, attachments }) =>
    device?.kind === "vfio" && attachments.length > 0
      ? device.hostAddresses.map((hostAddress, index) => ({
          hostAddress,
          port: device.port ?? 0,
          function: index,
          isHeld: attachments.includes(holder),
        }))
      : [],
  );
  if (!plugged.some(({ isHeld }) => isHeld)) return { functions: [], annotations: {} };
  const described = await claims.describe(plugged.map(({ hostAddress }) => hostAddress));
  const all = plugged.map((each) => {
    const {
      group = -1,
      vendor = "",
      class: kind = "",
    } = described.find(({ address }) => address === each.hostAddress) ?? {};
    const portKind = each.port < FIRST_SWITCH_PORT ? ("root-port" as const) : ("switch-port" as const);
    return { ...each, group, vendor, class: kind, portKind };
  });
  const held = all.filter(({ isHeld }) => isHeld);
  const functions = held.map((each) => ({
    hostAddress: each.hostAddress,
    path: [...guestPortPath(each.port), `00.${each.function}`],
  }));
  const groups = held.map(({ group }) => group);
  return { functions, annotations: gpuAnnotations(all, groups) };
}

export function decodeVfioSettings(field: Field): VfioSettings {
  return { coldPlug: field.field("coldPlug").oneOf(vfioPorts), hotPlug: field.field("hotPlug").oneOf(vfioPorts) };
}

/** @throws BelljarError of the first source that cannot be one, or that the sandbox would refuse */
export function checkPciSources(sources: readonly string[], settings: VfioSettings): void {
  if (sources.length > vmmLimits.portsMax) {
    throw new BelljarError("INVALID_ARGUMENT", `a container cannot have ${sources.length} PCI devices`, {
      facts: { max: vmmLimits.portsMax },
    });
  }
  for (const source of sources) parseVfioSource(source);
  const isRefused = settings.coldPlug === "no-port" && settings.hotPlug === "no-port";
  if (sources.length > 0 && isRefused) throw noPort();
}

export function noPort(): BelljarError {
  return new BelljarError("DEVICE_UNSUPPORTED", "this sandbox takes no PCI devices of the host, or none once it runs", {
    remedy: "Create it with `--hot-plug-vfio root-port`.",
  });
}

/** Whether a VM of these settings has ports of a PCIe switch. */
export function needsSwitch({ coldPlug, hotPlug }: VfioSettings): boolean {
  return coldPlug === "switch-port" || hotPlug === "switch-port";
}
