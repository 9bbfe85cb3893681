/** Processes of a container end: signals, and the wait for the first one. */
import type { CallOptions } from "../agent-client/index.ts";
import { BelljarError, sandboxLimits } from "../base/index.ts";
import { stateOf } from "./container-state.ts";
import type { ContainerState, HostSandbox } from "./state.ts";
import { SIGKILL, SIGTERM, signalNumber } from "./stop-signal.ts";

export interface SignalRequest {
  readonly containerId: string;
  /** Empty: the first process. */
  readonly processId: string;
  readonly signal: number;
  /** Every process of the container. */
  readonly all: boolean;
}

/** A process that is gone is success. */
export async function sendSignal(
  sandbox: HostSandbox,
  request: SignalRequest,
  options: CallOptions = {},
): Promise<void> {
  try {
    await sandbox.call("signalProcess", { ...request }, options);
  } catch (error) {
    const { reason } = BelljarError.from(error);
    if (reason !== "PROCESS_NOT_FOUND" && reason !== "CONTAINER_NOT_FOUND") throw error;
  }
}

export interface EndOptions {
  readonly graceMs: number;
  readonly force: boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Stop signal, grace, SIGKILL for all; resolves when the first process has ended. Who stops by force does not wait as long as
 * others for an agent that says nothing, and goes on to SIGKILL whatever became of the stop signal.
 */
export async function endFirst(
  sandbox: HostSandbox,
  id: string,
  { graceMs, force, signal }: EndOptions,
): Promise<void> {
  const state = stateOf(sandbox, id);
  if (state.state === "ready") return;
  const { forcedCallTimeoutMs, forcedKillTimeoutMs, killTimeoutMs } = sandboxLimits;
  const call = { signal, ...(force ? { timeoutMs: forcedCallTimeoutMs } : {}) };
  const send = (number: number, all: boolean, options: CallOptions): Promise<void> =>
    sendSignal(sandbox, { containerId: id, processId: "", signal: number, all }, options);
  const stopSignal = stopSignalOf(state);
  let isHeard = true;
  if (graceMs > 0 && stopSignal !== SIGKILL) {
    try {
      // What is frozen cannot take a signal to heart.
      if (state.frozen) await sandbox.call("resumeContainer", { containerId: id }, call);
      await send(stopSignal, false, call);
      if (await hasEnded(sandbox, id, graceMs, signal)) return;
    } catch (error) {
      if (!force || signal?.aborted === true || BelljarError.from(error).reason === "VMM_DIED") throw error;
      isHeard = false;
    }
  }
  await send(SIGKILL, true, isHeard ? call : { signal, timeoutMs: forcedKillTimeoutMs });
  if (await hasEnded(sandbox, id, killTimeoutMs, signal)) return;
  throw new BelljarError("DEADLINE_EXCEEDED", `container ${id} is still there after SIGKILL`, {
    facts: { timeoutMs: killTimeoutMs },
  });
}

function stopSignalOf({ config, imageConfig }: ContainerState): number {
  if (config.stopSignal !== undefined) return signalNumber(config.stopSignal);
  try {
    return imageConfig.stopSignal === "" ? SIGTERM : signalNumber(imageConfig.stopSignal);
  } catch {
    // An image may say anything; a container that cannot be stopped for it would be worse.
    return SIGTERM;
  }
}

async function hasEnded(
  sandbox: HostSandbox,
  id: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const either = signal === undefined ? timeout : AbortSignal.any([timeout, signal]);
  try {
    const ended = sandbox.until(() => (stateOf(sandbox, id).state === "stopped" ? true : undefined), either);
    return await sandbox.machine.whileAlive(ended);
  } catch (error) {
    if (timeout.aborted && signal?.aborted !== true) return false;
    throw error;
  }
}
