/** A root behind its daemon. Loaded when it is asked for. */
export { ConnectedCheckpoints } from "./checkpoints.ts";
export { DaemonLauncher } from "./daemon-launcher.ts";
export { DaemonLink } from "./daemon-link.ts";
export { ConnectedSandboxes } from "./sandboxes.ts";
export { ConnectedVolumes } from "./volumes.ts";
