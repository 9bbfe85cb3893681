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
  /** The same before and after; no other step of this process has it. */
  readonly number: number;
}

const steps = channel(STEP_CHANNEL);
let lastNumber = 0;

export async function publishStep<T>(kind: Step["kind"], name: string, work: () => Promise<T>): Promise<T> {
  if (!steps.hasSubscribers) return await work();
  lastNumber += 1;
  const number = lastNumber;
  steps.publish({ kind, name, phase: "before", number } satisfies Step);
  try {
    return await work();
  } finally {
    steps.publish({ kind, name, phase: "after", number } satisfies Step);
  }
}
