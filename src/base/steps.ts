/**
 * Tells what this process is about to do to the world outside, and has just done: each change on disk, QMP command, agent call,
 * child process, control group, and change of a device of the host. Tests listen, to end the process at any of these points; nothing
 * of it costs when nobody does.
 */
import { channel } from "node:diagnostics_channel";

/** Name of the diagnostics channel; its messages are `Step`s. */
export const STEP_CHANNEL = "belljar:step";

export interface Step {
  readonly kind: "store" | "qmp" | "agent" | "child" | "host" | "cgroup";
  /** The operation and what it is done to, such as `rename sandbox.json`. */
  readonly name: string;
  /** `after` comes whether it went well or not. */
  readonly phase: "before" | "after";
}

const steps = channel(STEP_CHANNEL);

export async function publishStep<T>(kind: Step["kind"], name: string, work: () => Promise<T>): Promise<T> {
  if (!steps.hasSubscribers) return await work();
  steps.publish({ kind, name, phase: "before" } satisfies Step);
  try {
    return await work();
  } finally {
    steps.publish({ kind, name, phase: "after" } satisfies Step);
  }
}
