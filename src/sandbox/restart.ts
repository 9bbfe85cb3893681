/** What becomes of a sandbox that has failed, and what its state says of it. */
import { BelljarError, type Field, hibernationLimits } from "../base/index.ts";

export const restartPolicies = ["on-failure", "from-checkpoint"] as const;
export type RestartPolicy = (typeof restartPolicies)[number];

export interface RestartConfig {
  /** `from-checkpoint`: from its latest one, and where there is none as `on-failure`. */
  readonly policy: RestartPolicy;
  /** In a row; without an end unless told. */
  readonly maxRetries?: number | undefined;
}

/** Of one that has failed. */
export interface RestartState {
  /** How often in a row it was started again, or is about to be. */
  readonly count: number;
  /** Milliseconds since the epoch: when it is about to be. */
  readonly nextAtMs?: number | undefined;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleRestart(config: RestartConfig | undefined, autoRemove: boolean): RestartConfig | undefined {
  if (config === undefined) return undefined;
  const { policy, maxRetries } = config;
  if (!restartPolicies.includes(policy)) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(policy)} is no way to restart`, {
      remedy: `Use one of ${restartPolicies.join(", ")}.`,
    });
  }
  const max = hibernationLimits.restartsMax;
  if (maxRetries !== undefined && (!Number.isInteger(maxRetries) || maxRetries < 1 || maxRetries > max)) {
    throw new BelljarError("INVALID_ARGUMENT", `${maxRetries} is no number of restarts`, {
      remedy: `Allow 1 to ${max}.`,
    });
  }
  if (autoRemove) {
    throw new BelljarError("INVALID_ARGUMENT", "a sandbox that goes when it has stopped cannot be restarted");
  }
  return { policy, ...(maxRetries === undefined ? {} : { maxRetries }) };
}

export function decodeRestart(field: Field): RestartConfig {
  return {
    policy: field.field("policy").oneOf(restartPolicies),
    maxRetries: field.field("maxRetries").optional((count) => count.integer({ min: 1 })),
  };
}

export function decodeRestartState(field: Field): RestartState {
  return {
    count: field.field("count").integer({ min: 0 }),
    nextAtMs: field.field("nextAtMs").optional((time) => time.integer({ min: 0 })),
  };
}
