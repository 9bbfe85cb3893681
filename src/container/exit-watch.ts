/**
 * Waits for the end of a container's first process, and writes it down, whoever else is waiting. Goes on until the process has
 * ended, the VM has, or this process lets go; a link that breaks is only a pause.
 */
import { BelljarError, linkLimits, sandboxLimits } from "../base/index.ts";
import { stoppedState } from "./container-state.ts";
import type { HostSandbox } from "./state.ts";
import { type ProcessStatus, toStatus } from "./status.ts";

export function watchForExit(sandbox: HostSandbox, containerId: string): void {
  void watch(sandbox, containerId).catch((error: unknown) => {
    sandbox.log.error("the end of a container cannot be waited for", { container: containerId, cause: String(error) });
  });
}

async function watch(sandbox: HostSandbox, containerId: string): Promise<void> {
  const { machine } = sandbox;
  const signal = machine.lifetime;
  const starts = startsOf(sandbox, containerId);
  while (!signal.aborted) {
    try {
      // In a paused VM nothing answers, and nothing ends.
      await sandbox.until((state) => (state.state === "paused" ? undefined : true), signal);
      const answer = await machine.patient.call(
        "waitProcess",
        { containerId, processId: "", waitMs: linkLimits.longPollMs },
        { timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs, signal },
      );
      if (!answer.ended) continue;
      if (sandbox.gone.aborted) return;
      await noteExit(sandbox, containerId, starts, toStatus(answer), undefined);
      return;
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      // The VM's own end is written down by whoever watches the VM.
      if (signal.aborted || sandbox.gone.aborted || error.reason === "VMM_DIED" || error.reason === "GUEST_PANIC")
        return;
      if (error.reason === "PROCESS_NOT_FOUND" || error.reason === "CONTAINER_NOT_FOUND") {
        await noteExit(sandbox, containerId, starts, undefined, error);
        return;
      }
      sandbox.log.debug("waiting for a container's end goes on", { container: containerId, cause: error.message });
      await sandbox.clock.sleep(sandboxLimits.exitRetryMs, signal).catch(() => {});
    }
  }
}

/** Only of the start that was watched: the container may have been stopped and started again meanwhile. */
export async function noteExit(
  sandbox: HostSandbox,
  containerId: string,
  starts: number | undefined,
  status: ProcessStatus | undefined,
  error: BelljarError | undefined,
): Promise<void> {
  await sandbox.update(
    (state) => ({
      ...state,
      containers: state.containers.map((each) => {
        if (each.id !== containerId || each.starts !== starts || each.status !== undefined) return each;
        if (each.state === "stopped" && status === undefined) return each;
        // An operation that is under way goes on, and clears its intent itself.
        return { ...stoppedState(each, error, sandbox.clock.nowMs()), pending: each.pending, status };
      }),
    }),
    { force: true },
  );
}

function startsOf(sandbox: HostSandbox, containerId: string): number | undefined {
  return sandbox.state.containers.find((container) => container.id === containerId)?.starts;
}
