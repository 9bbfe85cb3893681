/** A trail: checkpoints of a sandbox that are taken by themselves, of which the latest are kept. */
import { BelljarError, type Field, hibernationLimits } from "../base/index.ts";

export interface TrailConfig {
  readonly everyMs: number;
  /** How many there are at most; 10 unless told. */
  readonly keep?: number | undefined;
}

export interface TrailSettings extends TrailConfig {
  readonly keep: number;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleTrail(config: TrailConfig | undefined): TrailSettings | undefined {
  if (config === undefined) return undefined;
  const { everyMs, keep = hibernationLimits.trailKeepDefault } = config;
  const { trailEveryMinMs, idleTimeoutMaxMs, trailKeepMax } = hibernationLimits;
  if (!Number.isInteger(everyMs) || everyMs < trailEveryMinMs || everyMs > idleTimeoutMaxMs) {
    throw new BelljarError("INVALID_ARGUMENT", `a checkpoint every ${everyMs} ms cannot be had`, {
      remedy: `Ask for one every ${trailEveryMinMs} to ${idleTimeoutMaxMs} ms.`,
    });
  }
  if (!Number.isInteger(keep) || keep < 1 || keep > trailKeepMax) {
    throw new BelljarError("INVALID_ARGUMENT", `${keep} checkpoints cannot be kept`, {
      remedy: `Keep 1 to ${trailKeepMax}.`,
    });
  }
  return { everyMs, keep };
}

export function decodeTrail(field: Field): TrailSettings {
  return { everyMs: field.field("everyMs").integer({ min: 1 }), keep: field.field("keep").integer({ min: 1 }) };
}
