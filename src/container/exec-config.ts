/**
 * What a further process of a container is asked to be: as the container itself, changed only where the caller says so. What is
 * left out, or there and undefined, changes nothing: a process never has more than its container unless that was asked for.
 */
import { resolveCapabilities } from "./capabilities.ts";
import type { ContainerConfig, ProcessConfig } from "./config.ts";
import type { StoredConfig } from "./stored-config.ts";

/** @throws BelljarError `INVALID_ARGUMENT` for a capability that is none */
export function execConfig(own: StoredConfig, asked: ProcessConfig): ContainerConfig {
  const containers = resolveCapabilities(own.capAdd ?? [], own.capDrop ?? []);
  return {
    ...own,
    // Its own command is not an argument of the container's.
    entrypoint: [],
    keepAlive: undefined,
    command: asked.command,
    // Of a name that occurs twice the later value counts.
    env: [...(own.env ?? []), ...(asked.env ?? [])],
    clientEnvironment: asked.clientEnvironment,
    workingDir: asked.workingDir ?? own.workingDir,
    user: asked.user ?? own.user,
    tty: asked.tty,
    capDrop: ["ALL"],
    capAdd: resolveCapabilities(asked.capAdd ?? [], asked.capDrop ?? [], containers),
  };
}
