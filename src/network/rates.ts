/** How fast a sandbox's network may be, in each direction: what comes faster waits a little, and is dropped when it has waited too long. */
import { BelljarError, type Field, networkLimits } from "../base/index.ts";

export interface RateConfig {
  /** To the guest. */
  readonly inBytesPerSecond?: number | undefined;
  /** From the guest. */
  readonly outBytesPerSecond?: number | undefined;
}

export type Rates = RateConfig;

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleRates(config: RateConfig | undefined): Rates | undefined {
  const { inBytesPerSecond, outBytesPerSecond } = config ?? {};
  const { rateMinBytes: min, rateMaxBytes: max } = networkLimits;
  for (const rate of [inBytesPerSecond, outBytesPerSecond]) {
    if (rate === undefined || (Number.isInteger(rate) && rate >= min && rate <= max)) continue;
    throw new BelljarError("INVALID_ARGUMENT", `${rate} bytes per second is no speed that a network can have`, {
      facts: { min, max },
    });
  }
  if (inBytesPerSecond === undefined && outBytesPerSecond === undefined) return undefined;
  return { inBytesPerSecond, outBytesPerSecond };
}

export function decodeRates(field: Field): Rates {
  const rate = (name: keyof Rates): number | undefined =>
    field.field(name).optional((value) => value.integer({ min: 1, max: networkLimits.rateMaxBytes }));
  return { inBytesPerSecond: rate("inBytesPerSecond"), outBytesPerSecond: rate("outBytesPerSecond") };
}

/** What may come at once after a pause. */
export function burstBytes(bytesPerSecond: number): number {
  return Math.max(networkLimits.rateBurstMinBytes, Math.ceil(bytesPerSecond / 50));
}

/** Arguments of `tc` that slow down what a link sends. */
export function shapingArguments(link: string, bytesPerSecond: number): readonly string[] {
  const { rateLatencyMs } = networkLimits;
  const [rate, burst] = [`${bytesPerSecond}bps`, String(burstBytes(bytesPerSecond))];
  return [
    "qdisc",
    "replace",
    "dev",
    link,
    "root",
    "tbf",
    "rate",
    rate,
    "burst",
    burst,
    "latency",
    `${rateLatencyMs}ms`,
  ];
}
