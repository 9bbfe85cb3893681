/**
 * A process that does nothing but wait, and reaps what is orphaned, from the guest's own busybox: it needs nothing of the image.
 * It has no signal handlers, so as the first of its PID namespace only SIGKILL from outside ends it; for what the host
 * sends, the agent stands in (default-action.ts).
 */
import type { BindMount } from "./spec-changes.ts";

/** The guest's own, linked statically. */
const BUSYBOX = "/bin/busybox";

/** Makes busybox appear in the container. */
export function busyboxMount(destination: string): BindMount {
  return { source: BUSYBOX, destination, options: ["ro", "nosuid", "nodev"] };
}

/** @param busybox its path in the container, of plain characters */
export function waitingCommand(busybox: string): readonly string[] {
  // `wait` reaps every child, adopted ones too. The sleep is there to be waited for; whoever kills it gets a new one.
  return [busybox, "sh", "-c", `while :; do ${busybox} sleep 2147483647 & wait; done`];
}
