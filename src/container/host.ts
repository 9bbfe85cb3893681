/** What the containers of one sandbox have in common. */
import type { Copies } from "./copies.ts";
import type { MountHost } from "./mount-plan.ts";
import type { Outputs } from "./outputs.ts";
import type { HostSandbox } from "./state.ts";

export interface ContainerHost {
  readonly sandbox: HostSandbox;
  readonly outputs: Outputs;
  readonly copies: Copies;
  readonly mounts: MountHost;
}
