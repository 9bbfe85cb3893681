/** The library, and what only the command line needs of it. */
export {
  type DaemonDeps,
  daemonSocketPath,
  openHost,
  readTokens,
  startDaemon,
  stopOnSignals,
} from "../daemon/index.ts";
export { type ConnectedDaemon, connectDaemon } from "./daemon-status.ts";
export { LazyHost } from "./lazy-host.ts";
export * from "./public.ts";
