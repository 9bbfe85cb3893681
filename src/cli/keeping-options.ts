/** Options of `run` and `create` that say what a sandbox does for itself in the long run. */
import { BelljarError, hibernationLimits } from "../base/index.ts";
import type { SandboxCreateConfig } from "../sdk/index.ts";
import { parseCount, parseDuration } from "./quantities.ts";

export interface KeepingOptions {
  readonly idleTimeout?: string;
  readonly checkpointEvery?: string;
  readonly keep?: string;
  readonly restart?: string;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function keepingConfig(
  options: KeepingOptions,
): Pick<SandboxCreateConfig, "idleTimeoutMs" | "trail" | "restart"> {
  const { idleTimeout, checkpointEvery, keep, restart } = options;
  if (keep !== undefined && checkpointEvery === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", "--keep says how many checkpoints of --checkpoint-every are kept");
  }
  return {
    idleTimeoutMs: idleTimeout === undefined ? undefined : parseDuration(idleTimeout, "--idle-timeout"),
    trail:
      checkpointEvery === undefined
        ? undefined
        : {
            everyMs: parseDuration(checkpointEvery, "--checkpoint-every"),
            keep:
              keep === undefined
                ? undefined
                : parseCount(keep, "--keep", { min: 1, max: hibernationLimits.trailKeepMax }),
          },
    restart: restart === undefined ? undefined : parseRestart(restart),
  };
}

function parseRestart(text: string): SandboxCreateConfig["restart"] {
  if (text === "no") return undefined;
  const [policy, max] = text.split(":", 2);
  if (policy !== "on-failure" && policy !== "from-checkpoint") {
    throw new BelljarError("INVALID_ARGUMENT", `--restart ${JSON.stringify(text.slice(0, 60))} is no policy`, {
      remedy: "Use no, on-failure, on-failure:MAX, from-checkpoint or from-checkpoint:MAX.",
    });
  }
  const range = { min: 1, max: hibernationLimits.restartsMax };
  return { policy, maxRetries: max === undefined ? undefined : parseCount(max, "--restart", range) };
}
