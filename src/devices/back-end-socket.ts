/** Sockets on which another program waits for a VM: the user's own, or one that we start. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, type Field } from "../base/index.ts";
import type { DevicePlace } from "./kind.ts";

/** @throws BelljarError `DEVICE_NOT_FOUND`, `INVALID_ARGUMENT` */
export async function checkSocket(path: string): Promise<void> {
  if (!path.startsWith("/") || Buffer.byteLength(path) > 107) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(path.slice(0, 120))} is no absolute path of a socket`);
  }
  const info = await stat(path).catch(() => undefined);
  if (info?.isSocket() === true) return;
  throw new BelljarError("DEVICE_NOT_FOUND", `there is no socket at ${path}`, {
    facts: { path },
    remedy: "Start the program behind it first.",
  });
}

/** Of a program that we start. */
export function ownSocket(place: DevicePlace, id: string): string {
  return join(place.runDir, `${id}.sock`);
}

export function decodeSocketPath(field: Field): string | undefined {
  return field.field("socketPath").optional((path) => path.string({ minLength: 1, maxLength: 4_096 }));
}
