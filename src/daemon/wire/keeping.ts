/** What a sandbox does for itself in the long run, to the wire and back. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError, hibernationLimits } from "../../base/index.ts";
import type { api } from "../../protocol/index.ts";
import type { RewindOptions, SandboxCreateConfig, SandboxInfo } from "../../runtime/index.ts";
import { type RestartPolicy, restartPolicies } from "../../sandbox/index.ts";
import { given } from "./given.ts";

type Kept = Pick<SandboxCreateConfig, "idleTimeoutMs" | "trail" | "restart">;
type KeptInfo = Pick<SandboxInfo, "idleTimeoutMs" | "trail" | "restart">;

export function toKept({ idleTimeoutMs, trail, restart }: Kept) {
  return given({
    idleTimeoutMs,
    trail: trail === undefined ? undefined : given({ ...trail }),
    restart: restart === undefined ? undefined : given({ ...restart }),
  });
}

export function fromKept({ idleTimeoutMs, trail, restart }: api.SandboxSpec): Kept {
  return {
    idleTimeoutMs,
    trail: trail === undefined ? undefined : { everyMs: trail.everyMs, keep: trail.keep },
    restart: restart === undefined ? undefined : { policy: policyOf(restart.policy), maxRetries: restart.maxRetries },
  };
}

export function toKeptInfo({ idleTimeoutMs, trail, restart }: KeptInfo) {
  return given({
    idleTimeoutMs,
    trail: trail === undefined ? undefined : { ...trail },
    restart: restart === undefined ? undefined : given({ ...restart }),
  });
}

export function fromKeptInfo({ idleTimeoutMs, trail, restart }: api.SandboxInfo): KeptInfo {
  const { trailKeepDefault } = hibernationLimits;
  return {
    idleTimeoutMs,
    trail: trail === undefined ? undefined : { everyMs: trail.everyMs, keep: trail.keep ?? trailKeepDefault },
    restart:
      restart === undefined
        ? undefined
        : {
            policy: policyOf(restart.policy),
            count: restart.count,
            ...(restart.maxRetries === undefined ? {} : { maxRetries: restart.maxRetries }),
            ...(restart.nextAtMs === undefined ? {} : { nextAtMs: restart.nextAtMs }),
          },
  };
}

export function toRewindRequest(
  sandbox: string,
  { checkpoint, beforeMs, keepExec }: RewindOptions,
): MessageInitShape<typeof api.RewindSandboxRequestSchema> {
  return given({ sandbox, checkpoint, beforeMs, keepExec });
}

function policyOf(word: string): RestartPolicy {
  const found = restartPolicies.find((each) => each === word);
  if (found !== undefined) return found;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word.slice(0, 80))} is no way to restart`, {
    remedy: `Use one of ${restartPolicies.join(", ")}.`,
  });
}
