/**
 * The line to the program in the guest that brings copies back: one message, one answer. It is there as long as QEMU is, whether anybody in
 * the guest listens or not.
 */
import type { Socket } from "node:net";
import { BelljarError, cancelledError } from "../../base/index.ts";
import type { WakeAsk, WakeLine } from "../interface.ts";
import { tryConnect } from "./qmp.ts";

/** @throws BelljarError `VMM_DIED` when nobody is there any more */
export async function openWakeLine(path: string): Promise<WakeLine> {
  const socket = await tryConnect(path);
  if (socket === undefined) throw new BelljarError("VMM_DIED", `QEMU does not listen on ${path}`);
  // Told by whoever waits for an answer.
  socket.on("error", () => {});
  return { ask: (message, options) => ask(socket, message, options), close: () => void socket.destroy() };
}

async function ask(socket: Socket, message: Uint8Array, { answerBytes, timeoutMs, signal }: WakeAsk): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const answer = Buffer.alloc(answerBytes);
  let got = 0;
  const onData = (bytes: Buffer): void => {
    // What a guest says beyond its answer is nobody's.
    got += bytes.copy(answer, got);
    if (got === answerBytes) resolve(answer);
  };
  const onClose = (): void =>
    reject(new BelljarError("VMM_DIED", "QEMU let go of the line to the guest's wake program"));
  const onAbort = (): void => reject(cancelledError(signal));
  const late = setTimeout(() => {
    reject(new BelljarError("DEADLINE_EXCEEDED", `the guest's wake program did not answer within ${timeoutMs} ms`));
  }, timeoutMs);
  socket.on("data", onData).once("close", onClose);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    if (socket.destroyed) onClose();
    if (signal?.aborted === true) onAbort();
    socket.write(message);
    return await promise;
  } finally {
    clearTimeout(late);
    socket.off("data", onData).off("close", onClose);
    signal?.removeEventListener("abort", onAbort);
  }
}
