/** What tests ask of an agent, over and over. */
import { type AgentCaller, AgentClient } from "../../src/agent-client/index.ts";
import { silentLog } from "../../src/base/index.ts";
import type { HostAgent } from "./host-agent.ts";

export const WAIT_MS = 10_000;

export function clientOf(agent: HostAgent): AgentClient {
  return new AgentClient({ socketPath: agent.socketPath, timeoutMs: WAIT_MS, log: silentLog });
}

export const shell = (script: string): string[] => ["/bin/sh", "-c", script];

export async function createContainer(
  agent: AgentCaller,
  containerId: string,
  args: readonly string[],
  more: object = {},
): Promise<void> {
  const spec = { process: { args, env: ["PATH=/usr/bin:/bin"] } };
  await agent.call("createContainer", {
    containerId,
    specJson: Buffer.from(JSON.stringify(spec)),
    rootfs: { layers: [{ serial: "l-1" }], writable: { serial: "w-1" } },
    ...more,
  });
}

export async function execProcess(
  agent: AgentCaller,
  containerId: string,
  processId: string,
  args: readonly string[],
): Promise<void> {
  const processJson = Buffer.from(JSON.stringify({ args, env: ["PATH=/usr/bin:/bin"] }));
  await agent.call("execProcess", { containerId, processId, processJson });
}
