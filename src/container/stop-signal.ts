/** Names of signals, as images, docker and people write them. */
import { constants } from "node:os";
import { BelljarError } from "../base/index.ts";

export const SIGTERM: number = constants.signals.SIGTERM;
export const SIGKILL: number = constants.signals.SIGKILL;

const SIGNAL_MAX = 64;
/** As the C library of images has it: the kernel's first, 32 and 33, are the library's own. */
const RTMIN = 34;

/** @throws BelljarError `INVALID_ARGUMENT` */
export function signalNumber(text: string): number {
  const upper = text.toUpperCase().replace(/^SIG/, "");
  if (/^\d{1,2}$/.test(upper)) return checkSignal(Number(upper));
  const [, realtime] = /^RTMIN(?:\+(\d{1,2}))?$/.exec(upper) ?? [];
  if (upper.startsWith("RTMIN")) return checkSignal(RTMIN + Number(realtime ?? 0));
  const known = Object.entries(constants.signals).find(([name]) => name === `SIG${upper}`);
  if (known !== undefined) return known[1];
  throw new BelljarError("INVALID_ARGUMENT", `there is no signal ${JSON.stringify(text.slice(0, 40))}`);
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkSignal(number: number): number {
  if (Number.isInteger(number) && number >= 1 && number <= SIGNAL_MAX) return number;
  throw new BelljarError("INVALID_ARGUMENT", `there is no signal ${number}`, { facts: { max: SIGNAL_MAX } });
}
