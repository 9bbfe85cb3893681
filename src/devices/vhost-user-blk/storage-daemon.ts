/** QEMU's storage daemon: a disk that is served to a VM over a socket, by a process of its own. */
import { BelljarError, type ProcessIdentity } from "../../base/index.ts";
import { type BackEndCommand, endBackEnd, logPathOf, STORAGE_DAEMON, startBackEnd } from "../back-end-process.ts";
import type { DiskFormat } from "../disk-file.ts";

export interface StorageDaemonConfig {
  readonly socketPath: string;
  readonly path: string;
  readonly format: DiskFormat;
  readonly isHostDevice: boolean;
  readonly readOnly: boolean;
}

/** @throws BelljarError `DISK_IN_USE`, `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED`, `DEADLINE_EXCEEDED`, `CANCELLED`; nothing is left then */
export async function startStorageDaemon(config: StorageDaemonConfig, signal?: AbortSignal): Promise<ProcessIdentity> {
  return await startBackEnd(storageDaemonCommand(config), signal).catch((thrown: unknown) => {
    const error = BelljarError.from(thrown);
    if (!/Failed to get .*lock/.test(error.message)) throw error;
    const { path } = config;
    throw new BelljarError("DISK_IN_USE", `the disk ${path} is in use by another program`, {
      facts: { path },
      cause: error,
    });
  });
}

export async function endStorageDaemon(identity: ProcessIdentity, socketPath: string): Promise<void> {
  await endBackEnd(identity, { what: STORAGE_DAEMON, socketPath, logPath: logPathOf(socketPath) });
}

export function storageDaemonCommand(config: StorageDaemonConfig): BackEndCommand {
  const { socketPath, path, format, isHostDevice, readOnly } = config;
  const driver = isHostDevice ? "host_device" : "file";
  const file = { driver, "node-name": "file", filename: path, "read-only": readOnly };
  const disk = { driver: format, "node-name": "disk", file: "file", "read-only": readOnly };
  const exported = `type=vhost-user-blk,id=disk,node-name=disk,writable=${readOnly ? "off" : "on"}`;
  return {
    what: STORAGE_DAEMON,
    program: STORAGE_DAEMON,
    args: [
      ...["--blockdev", JSON.stringify(file), "--blockdev", JSON.stringify(disk)],
      ...["--export", `${exported},addr.type=unix,addr.path=${socketPath.replaceAll(",", ",,")}`],
    ],
    socketPath,
    logPath: logPathOf(socketPath),
  };
}
