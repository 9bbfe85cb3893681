/**
 * Ends the processes that somebody had started in containers beside their first ones: in a copy of a sandbox nobody waits for them any
 * more. With each goes what it had started and what still has it for an ancestor; what had left it before is the container's own.
 */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { standstillLimits } from "../src/base/limits.ts";
import type { GuestContainer } from "./container.ts";
import type { GuestProcess } from "./process.ts";
import { INIT } from "./process-table.ts";
import { SIGKILL, sendSignal } from "./signals.ts";

type Container = Pick<GuestContainer, "id" | "processes">;

interface Further extends Container {
  readonly entry: readonly [processId: string, process: GuestProcess];
}

/**
 * Resolves when they are gone and forgotten, their exit statuses and output too. They may be frozen.
 * @throws BelljarError `AGENT_FAILED` when one of them is still there at the deadline
 */
export async function endProcesses(containers: readonly Container[], procDir: string): Promise<void> {
  const further = furtherOf(containers);
  const running = runningOf(further);
  for (const pid of pidsOf(further, procDir)) sendSignal(pid, SIGKILL);
  await allEnded(running);
  for (const { id, processes, entry } of further) {
    const [processId, { end }] = entry;
    if (end === undefined) throw new BelljarError("AGENT_FAILED", `a process of ${id} is still there after SIGKILL`);
    await processes.release(processId);
  }
}

/** Whom `endProcesses` would end now. */
export function furtherPids(containers: readonly Container[], procDir: string): readonly number[] {
  return pidsOf(furtherOf(containers), procDir);
}

function furtherOf(containers: readonly Container[]): readonly Further[] {
  return containers.flatMap(({ id, processes }) =>
    [...processes.settled()].filter(([processId]) => processId !== INIT).map((entry) => ({ id, processes, entry })),
  );
}

/** Of those that run, with all that came from them. */
function pidsOf(further: readonly Further[], procDir: string): readonly number[] {
  return runningOf(further).flatMap(({ pid }) => [pid, ...descendants(procDir, pid)]);
}

function runningOf(further: readonly Further[]): readonly GuestProcess[] {
  return further.map(({ entry: [, process] }) => process).filter(({ end }) => end === undefined);
}

async function allEnded(processes: readonly GuestProcess[]): Promise<void> {
  if (processes.length === 0) return;
  const given = new AbortController();
  const deadline = sleep(standstillLimits.endTimeoutMs, undefined, { signal: given.signal }).catch(() => {});
  await Promise.race([Promise.all(processes.map(({ ended }) => ended)), deadline]);
  given.abort();
}

/** Pids of all that came from it. Those that come and go meanwhile may be missing: nothing does while everything stands still. */
function descendants(procDir: string, pid: number): readonly number[] {
  const found: number[] = [];
  const ahead = [pid];
  for (let next = ahead.pop(); next !== undefined; next = ahead.pop()) {
    for (const child of childrenOf(procDir, next)) {
      if (found.length >= standstillLimits.descendantsMax) return found;
      found.push(child);
      ahead.push(child);
    }
  }
  return found;
}

function childrenOf(procDir: string, pid: number): readonly number[] {
  try {
    const threads = readdirSync(`${procDir}/${pid}/task`);
    const lists = threads.map((thread) => readFileSync(`${procDir}/${pid}/task/${thread}/children`, "latin1"));
    return lists.flatMap((list) =>
      list
        .split(" ")
        .filter((word) => word !== "")
        .map(Number),
    );
  } catch {
    // It is gone.
    return [];
  }
}
