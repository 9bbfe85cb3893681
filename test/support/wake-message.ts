/** What a guest's wake program reads: src/protocol/wake.ts and guest-image/programs/wake.c, once more. */
import type { WakeMessage, WakeStep } from "../../src/protocol/index.ts";

const HEADER_BYTES = 96;
const STEP_BYTES = 128;

export function decodeWake(bytes: Uint8Array): WakeMessage {
  const message = Buffer.from(bytes);
  if (message.readUInt32LE(0) !== message.length) throw new Error(`${message.length} bytes are no whole message`);
  const ms = Number(message.readBigInt64LE(8)) * 1000 + Number(message.readBigInt64LE(16)) / 1e6;
  const steps: WakeStep[] = [];
  for (let at = HEADER_BYTES; at < message.length; ) {
    const step = message.subarray(at, at + message.readUInt32LE(at + 4));
    const number = step.readUInt32LE(8);
    if (step.length < STEP_BYTES) throw new Error("a step is cut short");
    if (step.readUInt32LE(0) === 2) steps.push({ kind: "kill", pid: number });
    else if (step.readUInt32LE(0) === 3) {
      const requests: Uint8Array[] = [];
      for (let begin = STEP_BYTES; begin < STEP_BYTES + number; ) {
        const request = step.subarray(begin, begin + step.readUInt32LE(begin));
        requests.push(Buffer.from(request));
        begin += request.length;
      }
      steps.push({ kind: "network", requests, mayBeGone: step.readUInt32LE(12) === 1 });
    } else if (step.readUInt32LE(0) === 4) {
      const bytes = step.subarray(STEP_BYTES, STEP_BYTES + number);
      const groups = Array.from({ length: number / 2 }, (_, at) => bytes.readUInt16BE(at * 2).toString(16));
      const address = number === 4 ? bytes.join(".") : groups.join(":");
      steps.push({ kind: "disconnect", address, keepInside: step.readUInt32LE(12) === 1 });
    } else {
      const path = step.toString("utf8", 16, step.indexOf(0, 16));
      steps.push({ kind: "write", path, text: step.toString("utf8", STEP_BYTES, STEP_BYTES + number) });
    }
    at += step.length;
  }
  const entropy = message.subarray(32, HEADER_BYTES);
  if (ms === 0) return { entropy, steps };
  return { entropy, clock: message.readUInt32LE(4) === 1 ? { advanceMs: ms } : { realtimeMs: ms }, steps };
}
