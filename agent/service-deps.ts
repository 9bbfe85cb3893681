/** What the agent's methods need of the guest. */
import type { Capacity } from "./capacity.ts";
import type { ContainerDeps } from "./container.ts";
import type { System } from "./system.ts";
import type { RunTool } from "./tools.ts";
import type { WakePlanDeps } from "./wake-plan.ts";

export interface ServiceDeps extends ContainerDeps {
  readonly system: Pick<
    System,
    | "configure"
    | "kernelRelease"
    | "memory"
    | "networkDevices"
    | "powerOff"
    | "processCount"
    | "realtimeNs"
    | "uptimeMs"
  >;
  readonly capacity: Pick<Capacity, "fit" | "makeRoom">;
  readonly runTool: RunTool;
  /** Ends the guest's connections that have these addresses. */
  readonly disconnect: (addresses: readonly string[]) => Promise<void>;
  /** Whether the program is there that wakes copies without the agent. */
  readonly hasWaker: () => boolean;
  readonly interfaces: WakePlanDeps["interfaces"];
  /** Changes with every start of the agent. */
  readonly instance: string;
  /** `streamLimits.processesMax` unless told. */
  readonly processesMax?: number;
}
