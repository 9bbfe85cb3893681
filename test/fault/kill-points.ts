/** Where an owner can be killed: every step of every operation, and what the target may be afterwards. */
import type { Field } from "../../src/base/index.ts";
import {
  type Base,
  type KillPoint,
  type OperationName,
  phases,
  SECOND,
  TARGET,
  USUAL_MIB,
} from "../programs/owner-commands.ts";
import type { FoundSandbox } from "./world.ts";

export interface Scenario {
  readonly operation: OperationName;
  readonly base: Base;
  /** The old state and the new one, as `describeTarget` has them. */
  readonly outcomes: readonly [string, string];
  /** What the next owner makes of a target that is gone. */
  readonly next?: Base;
}

const RUNNING = ["running, main running", "running, main running"] as const;

export const scenarios: readonly Scenario[] = [
  { operation: "exec", base: "running", outcomes: ["running, main running", "running, main running"] },
  { operation: "pause", base: "running", outcomes: ["running, main running", "paused, main paused"] },
  { operation: "resume", base: "paused", outcomes: ["paused, main paused", "running, main running"] },
  {
    operation: "create container",
    base: "running",
    outcomes: ["running, main running", "running, main running, second ready"],
  },
  {
    operation: "start container",
    base: "second ready",
    outcomes: ["running, main running, second ready", "running, main running, second running"],
  },
  {
    operation: "stop container",
    base: "second running",
    outcomes: ["running, main running, second running", "running, main running, second stopped"],
  },
  {
    operation: "delete container",
    base: "second ready",
    outcomes: ["running, main running, second ready", "running, main running"],
  },
  { operation: "add device", base: "running", outcomes: ["running, main running", "running, main running, device"] },
  { operation: "remove device", base: "device", outcomes: ["running, main running, device", "running, main running"] },
  {
    operation: "add served device",
    base: "running",
    outcomes: ["running, main running", "running, main running, device"],
  },
  {
    operation: "remove served device",
    base: "served device",
    outcomes: ["running, main running, device", "running, main running"],
  },
  { operation: "grow", base: "running", outcomes: ["running, main running", "running, main running, 384 MiB"] },
  { operation: "shrink", base: "grown", outcomes: ["running, main running, 384 MiB", "running, main running"] },
  {
    operation: "mount container",
    base: "running",
    outcomes: ["running, main running", "running, main running, second ready"],
  },
  {
    operation: "unmount container",
    base: "second mounted",
    outcomes: ["running, main running, second ready", "running, main running"],
  },
  {
    operation: "grow storage",
    base: "second running",
    outcomes: ["running, main running, second running", "running, main running, second running"],
  },
  { operation: "create volume", base: "running", outcomes: ["running, main running", "running, main running"] },
  { operation: "remove volume", base: "spare volume", outcomes: ["running, main running", "running, main running"] },
  { operation: "import image", base: "running", outcomes: ["running, main running", "running, main running"] },
  { operation: "prune images", base: "spare image", outcomes: ["running, main running", "running, main running"] },
  { operation: "checkpoint", base: "plain", outcomes: ["running, main running", "running, main running"] },
  { operation: "remove checkpoint", base: "checkpoint", outcomes: ["running, main running", "running, main running"] },
  { operation: "build template", base: "plain", outcomes: ["running, main running", "running, main running"] },
  { operation: "restore", base: "checkpoint", outcomes: ["running, main running", "running, main running"] },
  { operation: "fork", base: "plain", outcomes: ["running, main running", "running, main running"] },
  { operation: "fill spares", base: "no spare waits", outcomes: RUNNING },
  { operation: "take spare", base: "a spare waits", outcomes: RUNNING },
  { operation: "fill standbys", base: "no copy waits", outcomes: RUNNING },
  { operation: "take standby", base: "a copy waits", outcomes: RUNNING },
  { operation: "hibernate", base: "plain", outcomes: ["running, main running", "hibernated, main paused"] },
  {
    operation: "rewind",
    base: "checkpoint",
    outcomes: ["running, main running", "hibernated, main paused"],
  },
  { operation: "wake", base: "hibernated", outcomes: ["hibernated, main paused", "running, main running"] },
  { operation: "stop", base: "running", outcomes: ["running, main running", "stopped, main stopped"] },
  { operation: "restart", base: "stopped", outcomes: ["stopped, main stopped", "running, main running"] },
  { operation: "delete", base: "paused", outcomes: ["paused, main paused", "gone"] },
  { operation: "start", base: "ready", outcomes: ["ready, main ready", "running, main running"] },
  { operation: "create", base: "none", outcomes: ["gone", "running, main running"] },
  {
    operation: "make boot template",
    base: "no template",
    outcomes: ["gone", "running, main running"],
    next: "plain",
  },
  { operation: "fill pool", base: "nothing waits", outcomes: ["gone", "running, main running"], next: "networked" },
  { operation: "take waiting VM", base: "a VM waits", outcomes: ["gone", "running, main running"], next: "networked" },
];

export function describeTarget(sandboxes: readonly FoundSandbox[]): string {
  const target = sandboxes.find(({ name }) => name === TARGET);
  if (target === undefined) return "gone";
  const second = target.containers.find(({ name }) => name === SECOND);
  const parts = [target.state, `main ${target.containers[0]?.state ?? "gone"}`];
  if (second !== undefined) parts.push(`second ${second.state}`);
  for (const _ of target.devices) parts.push("device");
  if (target.vmmPid !== undefined && target.memoryMib !== USUAL_MIB) parts.push(`${target.memoryMib} MiB`);
  return parts.join(", ");
}

/**
 * What goes on all the time, whatever the operation: readings of output, waits for ends, looks of the monitor, or at memory on its
 * way, and the journal of events, whose half written lines a test of its own has.
 */
const BACKGROUND =
  /^(store (open|write) events|agent (readOutput|waitProcess|getGuestStats)|qmp query-(status|memory-devices))$/;
/** An exec does these too; the first one of the time when it runs stands for them. */
const OF_EXEC = /^agent (readOutput|waitProcess)$/;

/** Points of one run of an operation, in the order in which they came. */
export function pointsOf(answer: Field, operation: OperationName): KillPoint[] {
  const steps = answer.field("steps").array((told) => ({
    step: told.field("step").string(),
    phase: told.field("phase").oneOf(["before", "after"]),
    occurrence: told.field("occurrence").integer({ min: 1 }),
  }));
  return steps.flatMap(({ step, phase, occurrence }): KillPoint[] => {
    const isOfExec = operation === "exec" && OF_EXEC.test(step) && occurrence === 1;
    if (phase === "after" || (BACKGROUND.test(step) && !isOfExec)) return [];
    // A change on disk is made or not made; the others are something that goes on elsewhere.
    const used = step.startsWith("store ") ? phases.filter((each) => each !== "during") : phases;
    return used.map((each) => ({ step, occurrence, phase: each }));
  });
}
