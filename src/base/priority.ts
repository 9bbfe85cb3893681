/**
 * Who goes first where CPUs are short: whatever manages sandboxes, and then the sandboxes. A hundred guests that all have something to do would
 * otherwise leave it a hundredth of a CPU, and every one of them would wait for it.
 */
import { getPriority, setPriority } from "node:os";

/** Niceness, of which less is more. A process at this one gets about five times as much as one at 0. */
const MANAGER_NICENESS = -7;
const GUEST_NICENESS = 0;

/** For a process that does nothing but manage. Without the right to it, everything is as it was. */
export function goBeforeGuests(): void {
  try {
    if (getPriority() > MANAGER_NICENESS) setPriority(MANAGER_NICENESS);
  } catch {
    // Only root may.
  }
}

/** What works for one guest does not share its manager's place. Called as soon as it runs: the threads that it will start do as it does. */
export function goWithGuests(pid: number | undefined): void {
  if (pid === undefined || getPriority() >= GUEST_NICENESS) return;
  try {
    setPriority(pid, GUEST_NICENESS);
  } catch {
    // It has ended already.
  }
}
