/**
 * What the wake program (guest-image/programs/wake.c) is to do in a copy before the agent there has come to itself: said when everything
 * stands still, so that nothing of it is different in the copy.
 */
import type { PlannedInterface, PlannedWake } from "../src/protocol/wake.ts";
import type { Cgroups } from "./cgroups.ts";
import type { GuestContainer } from "./container.ts";
import { furtherPids } from "./end-processes.ts";
import type { IdentityFiles } from "./identity-files.ts";

export interface WakePlanDeps {
  readonly cgroups: Pick<Cgroups, "restPlan" | "thawPlan">;
  readonly identity: Pick<IdentityFiles, "plan">;
  readonly procDir: string;
  /** Of the guest, as they are now; undefined when there are more than may be told. */
  readonly interfaces: () => readonly PlannedInterface[] | undefined;
}

export function wakePlan(
  { cgroups, identity, procDir, interfaces }: WakePlanDeps,
  containers: readonly Pick<GuestContainer, "id" | "namesPlan" | "processes">[],
): PlannedWake {
  return {
    files: [
      { path: `${procDir}/sys/kernel/hostname`, text: "{hostname}" },
      ...containers.flatMap((container) => container.namesPlan()),
      ...identity.plan(),
    ],
    furtherPids: furtherPids(containers, procDir),
    thaw: cgroups.thawPlan(),
    interfaces: interfaces(),
    disconnects: true,
    rest: cgroups.restPlan(),
  };
}
