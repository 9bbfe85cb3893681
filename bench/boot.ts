/** Cold boots of a bare sandbox: from the start of the VMM to the agent's first answer, no container. */
import { join } from "node:path";
import { connectAgent } from "../src/agent-client/index.ts";
import { newId, silentLog, systemClock } from "../src/base/index.ts";
import { openGuestImages } from "../src/guest/index.ts";
import { type Acceleration, createQemu } from "../src/hypervisor/index.ts";
import { Sandbox, type SandboxDeps, settleSandboxConfig } from "../src/sandbox/index.ts";

export interface BootOptions {
  readonly guestDir: string;
  /** For state and sockets; the caller's to remove. */
  readonly dir: string;
  readonly acceleration: Acceleration;
}

export interface Boot {
  readonly readyMs: number;
  /** MemTotal less MemAvailable of the idle guest. */
  readonly usedMb: number;
}

export async function bootOnce(options: BootOptions): Promise<Boot> {
  const { acceleration } = options;
  let answeredAt = 0;
  const deps: SandboxDeps = {
    hypervisor: createQemu({ log: silentLog }),
    acceleration: { resolve: async () => ({ acceleration, explanation: "as measured", remembered: true }) },
    guestImage: await openGuestImages({ dir: options.guestDir, log: silentLog }).current(),
    connectAgent: async (connectOptions) => {
      const link = await connectAgent(connectOptions);
      answeredAt = performance.now();
      return link;
    },
    sandboxesDir: join(options.dir, "sandboxes"),
    runDir: join(options.dir, "run"),
    clock: systemClock,
    log: silentLog,
  };
  const id = newId();
  const settings = settleSandboxConfig({ memoryMib: 256 }, id);
  const start = performance.now();
  await using sandbox = await Sandbox.create(deps, id, "none", settings);
  const agent = await sandbox.agent();
  const readyMs = answeredAt - start;
  const stats = await agent.call("getGuestStats", {});
  return { readyMs, usedMb: Number(stats.memoryTotalBytes - stats.memoryAvailableBytes) / 1e6 };
}
