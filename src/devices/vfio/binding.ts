/**
 * Takes functions from the host's drivers and gives them back. What they had before is plain data, to be written down before the
 * first change: whoever comes later can then undo it. Both ways may be repeated, from wherever the last try had got to.
 */
import { join } from "node:path";
import {
  BelljarError,
  type Clock,
  type Field,
  hasErrno,
  publishStep,
  vmmLimits,
  withDeadline,
} from "../../base/index.ts";
import { type PciFunction, VFIO_DRIVER } from "./group.ts";
import { deviceDir, driverDir, groupNode, type PciHost } from "./pci-host.ts";

/** What a function had before it was taken. */
export interface TakenFunction {
  readonly address: string;
  readonly driver?: string | undefined;
  /** The driver that the host's administrator had chosen for it. */
  readonly override?: string | undefined;
}

/** Those that a driver of the host has, or none: what vfio-pci has already stays with it afterwards. */
export async function planTaking(host: PciHost, functions: readonly PciFunction[]): Promise<TakenFunction[]> {
  const planned: TakenFunction[] = [];
  for (const { address, driver } of functions) {
    if (driver === VFIO_DRIVER) continue;
    const override = await host.read(join(deviceDir(host, address), "driver_override"));
    planned.push({ address, driver, override: override === "" || override === "(null)" ? undefined : override });
  }
  return planned;
}

/** @throws BelljarError `DEVICE_NOT_FOUND` when it has gone, `DEVICE_FAILED` when the kernel or a driver does not go along */
export async function takeFunction(host: PciHost, { address }: TakenFunction): Promise<void> {
  await changing(host, address, `take ${address}`, async () => {
    await host.write(join(deviceDir(host, address), "driver_override"), VFIO_DRIVER);
    const driver = await host.linkName(join(deviceDir(host, address), "driver"));
    if (driver === VFIO_DRIVER) return;
    if (driver !== undefined) await host.write(join(driverDir(host, driver), "unbind"), address);
    await host.write(join(host.sysDir, "bus/pci/drivers_probe"), address);
    const now = await host.linkName(join(deviceDir(host, address), "driver"));
    if (now === VFIO_DRIVER) return;
    throw new BelljarError("DEVICE_FAILED", `${VFIO_DRIVER} did not take ${address}; ${now ?? "no driver"} has it`);
  });
}

/** One that has gone from the host needs nothing. @throws BelljarError `DEVICE_FAILED` */
export async function returnFunction(host: PciHost, taken: TakenFunction): Promise<void> {
  const { address } = taken;
  const dir = deviceDir(host, address);
  if (!(await host.exists(dir))) return;
  await changing(host, address, `return ${address}`, async () => {
    // An empty line is how an override is taken away.
    await host.write(join(dir, "driver_override"), `${taken.override ?? ""}\n`);
    const now = await host.linkName(join(dir, "driver"));
    if (now !== undefined && now !== VFIO_DRIVER) return;
    if (now === VFIO_DRIVER) await host.write(join(driverDir(host, VFIO_DRIVER), "unbind"), address);
    if (taken.driver === undefined) return;
    const isThere = await host.exists(driverDir(host, taken.driver));
    if (isThere && (await tryBind(host, taken.driver, address))) return;
    await host.write(join(host.sysDir, "bus/pci/drivers_probe"), address);
  }).catch((error: unknown) => {
    if (BelljarError.from(error).reason !== "DEVICE_NOT_FOUND") throw error;
  });
}

/** A VMM that has just ended may keep its devices for a moment; a driver that is told to let go earlier would wait for it. */
export async function untilGroupFree(host: PciHost, clock: Clock, group: number): Promise<void> {
  const endMs = performance.now() + vmmLimits.groupFreeTimeoutMs;
  while (await host.isBusy(groupNode(host, group))) {
    if (performance.now() > endMs) {
      throw new BelljarError("DEVICE_IN_USE", `another process has IOMMU group ${group} open`, { facts: { group } });
    }
    await clock.sleep(vmmLimits.pollIntervalMs);
  }
}

export function decodeTakenFunction(field: Field): TakenFunction {
  const name = (value: Field): string => value.string({ minLength: 1, maxLength: 64, pattern: /^[A-Za-z0-9_.-]+$/ });
  return {
    address: decodePciAddress(field.field("address")),
    driver: field.field("driver").optional(name),
    override: field.field("override").optional(name),
  };
}

export function decodePciAddress(field: Field): string {
  return field.string({ pattern: /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/ });
}

async function tryBind(host: PciHost, driver: string, address: string): Promise<boolean> {
  try {
    await host.write(join(driverDir(host, driver), "bind"), address);
    return true;
  } catch (error) {
    // It was that driver's by an override, or by an id that somebody has taken away since.
    if (hasErrno(error, "ENODEV") || hasErrno(error, "EINVAL")) return false;
    throw error;
  }
}

async function changing(host: PciHost, address: string, what: string, work: () => Promise<void>): Promise<void> {
  try {
    await publishStep("host", what, () =>
      withDeadline({ timeoutMs: vmmLimits.driverTimeoutMs, what, reason: "DEVICE_FAILED" }, work),
    );
  } catch (error) {
    if (!(await host.exists(deviceDir(host, address)))) {
      throw new BelljarError("DEVICE_NOT_FOUND", `the PCI device ${address} has gone from the host`, {
        facts: { device: address },
        cause: error,
      });
    }
    if (error instanceof BelljarError && error.reason !== "INTERNAL") throw error;
    const from = BelljarError.from(error);
    const reason = from.reason === "INTERNAL" ? "DEVICE_FAILED" : from.reason;
    throw new BelljarError(reason, `the kernel did not ${what}`, { facts: { device: address }, cause: error });
  }
}
