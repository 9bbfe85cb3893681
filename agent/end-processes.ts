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

/**
 * Resolves when they are gone and forgotten, their exit statuses and output too. They may be frozen.
 * @throws BelljarError `AGENT_FAILED` when one of them is still there at the deadline
 */
export async function endProcesses(containers: readonly Container[], procDir: string): Promise<void> {
  const further = containers.flatMap(({ id, processes }) =>
    [...processes.settled()].filter(([processId]) => processId !== INIT).map((entry) => ({ id, processes, entry })),
  );
  const running = further.map(({ entry: [, process] }) => process).filter(({ end }) => end === undefined);
  for (const pid of withDescendants(running, procDir)) sendSignal(pid, SIGKILL);
  await allEnded(running);
  for (const { id, processes, entry } of further) {
    const [processId, { end }] = entry;
    if (end === undefined) throw new BelljarError("AGENT_FAILED", `a process of ${id} is still there after SIGKILL`);
    await processes.release(processId);
  }
}

/** Whom `endProcesses` would end now. */
export function furtherPids(containers: readonly Container[], procDir: string): readonly number[] {
  const further = containers.flatMap(({ processes }) => [...processes.settled()].filter(([id]) => id !== INIT));
  const running = further.map(([, process]) => process).filter(({ end }) => end === undefined);
  return withDescendants(running, procDir);
}

function withDescendants(processes: readonly GuestProcess[], procDir: string): readonly number[] {
  return processes.flatMap(({ pid }) => [pid, ...descendants(procDir, pid)]);
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
