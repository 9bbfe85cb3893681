/** What the guest's wake program is told: to bring the containers of a copy back before the agent could, as its CPUs begin to run; and to have the agent go on. */
import { BelljarError, type Log, messageChain, standstillLimits } from "../base/index.ts";
import type { Vm, WakeLine } from "../hypervisor/interface.ts";
import { decodeWakeAnswer, WAKE_ANSWER_BYTES } from "../protocol/index.ts";

/** Answers whether the program has done all that the message says; where it has not, the agent is asked to. @throws what `resume` throws */
export async function resumeWith(
  vm: Pick<Vm, "openWakeLine" | "resume">,
  message: Uint8Array | undefined,
  log: Log,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const warn = (error: unknown): void => {
    log.warn("a copy is brought back by its agent, which takes longer", { cause: messageChain(error).join(": ") });
  };
  let line: WakeLine | undefined;
  try {
    line = message === undefined ? undefined : await vm.openWakeLine();
  } catch (error) {
    warn(error);
  }
  if (line === undefined || message === undefined) {
    await vm.resume();
    return false;
  }
  try {
    // It is there when the guest wakes.
    const { wakeTimeoutMs: timeoutMs } = standstillLimits;
    const asking = line.ask(message, { answerBytes: WAKE_ANSWER_BYTES, timeoutMs, signal }).then(decodeWakeAnswer);
    asking.catch(() => {});
    await vm.resume();
    const { errno, steps } = await asking.catch((error: unknown) => {
      warn(error);
      return UNANSWERED;
    });
    if (errno > 0) warn(`the wake program failed with errno ${errno} after ${steps} steps`);
    return errno === 0;
  } finally {
    line.close();
  }
}

/** Has the agent of a copy go on, which was told to stand still. @throws BelljarError `AGENT_FAILED`, `DEADLINE_EXCEEDED`, `VMM_DIED` */
export async function rouse(
  vm: Pick<Vm, "openWakeLine">,
  message: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  const line = await vm.openWakeLine();
  if (line === undefined) throw new BelljarError("AGENT_FAILED", "the VM has no line to the guest's wake program");
  try {
    const { wakeTimeoutMs: timeoutMs } = standstillLimits;
    const { errno } = decodeWakeAnswer(await line.ask(message, { answerBytes: WAKE_ANSWER_BYTES, timeoutMs, signal }));
    if (errno !== 0) throw new BelljarError("AGENT_FAILED", `the wake program failed with errno ${errno}`);
  } finally {
    line.close();
  }
}

const UNANSWERED = { errno: -1, steps: 0 };
