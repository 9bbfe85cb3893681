/** The daemon and its API: the server, which is loaded only where it runs, and what crosses the wire, for both ends. */
import type { Daemon, DaemonDeps } from "./daemon.ts";
import type { Host, HostDeps } from "./host.ts";
import type { Tokens } from "./tokens.ts";

export { CLIENT_HEADER } from "./call-log.ts";
export type { Daemon, DaemonDeps, ServedRuntime } from "./daemon.ts";
export type { Host, HostDeps, HostPaths, KeptWaiting } from "./host.ts";
export { daemonLogPath, daemonProgram, daemonSocketPath, ROOT_LOCKED_STATUS } from "./places.ts";
export { stopOnSignals } from "./signals.ts";
export {
  fromCheckpointInfo,
  fromRestoreReport,
  toCheckpointRequest,
  toForkRequest,
  toRestoredContainer,
  toRestoreSpec,
} from "./wire/checkpoints.ts";
export { toContainerRequest, toLimits, toProcessSpec, toSandboxSpec } from "./wire/config.ts";
export { fromDeviceInfo, toDeviceSpec } from "./wire/devices.ts";
export { fromConnectError } from "./wire/errors.ts";
export { fromDirectoryPage, fromFileEvent, fromFileInfo, toFileAttributes } from "./wire/files.ts";
export {
  fromContainerInfo,
  fromEvent,
  fromProcessInfo,
  fromRuntimeEvent,
  fromSandboxInfo,
  fromStatus,
  incomplete,
} from "./wire/info.ts";
export { toRewindRequest } from "./wire/keeping.ts";
export { fromVolumeInfo, toVolumeRequest } from "./wire/mounts.ts";
export { fromInterfaceInfo, fromRouteSpec, toRouteSpec } from "./wire/network.ts";
export { fromContainerStats, fromSandboxStats } from "./wire/stats.ts";

/** @throws BelljarError `INVALID_ARGUMENT` */
export async function readTokens(path: string): Promise<Tokens> {
  return await (await import("./tokens.ts")).Tokens.read(path);
}

/** Takes the root and serves it. @throws BelljarError `ROOT_LOCKED`, and what opening the root throws */
export async function startDaemon(deps: DaemonDeps): Promise<Daemon> {
  const { serveDaemon } = await import("./daemon.ts");
  return await serveDaemon(deps);
}

/** The parts of this host, loaded when they are asked for. */
export async function openHost(deps: HostDeps): Promise<Host> {
  const { Host } = await import("./host.ts");
  return new Host(deps);
}
