/** Gives a container its devices: those of the host are plugged into the VM, for as long as it is in the guest. */
import type { AgentRequest } from "../agent-client/index.ts";
import { BelljarError } from "../base/index.ts";
import { inspectHostNode } from "../devices/index.ts";
import { settleDevices } from "./device-config.ts";
import type { ContainerState, HostSandbox } from "./state.ts";

type NodeRequest = NonNullable<AgentRequest<"createContainer">["devices"]>[number];

/** @throws BelljarError what is wrong with one of them; those before it are the container's, until `removeAllOf` */
export async function giveDevices(
  sandbox: HostSandbox,
  { id, config }: ContainerState,
  signal: AbortSignal | undefined,
): Promise<NodeRequest[]> {
  const nodes: NodeRequest[] = [];
  for (const { path, containerPath, access } of settleDevices(config.devices ?? [])) {
    const node = await inspectHostNode(path).catch((thrown: unknown) => {
      const error = BelljarError.from(thrown);
      // What the host has not, the guest may have; drives are nobody's.
      if (error.reason === "DEVICE_NOT_FOUND" && path.startsWith("/dev/")) return undefined;
      throw error;
    });
    if (node === undefined || node.type === "character") {
      await sandbox.devices.add({ kind: "generic", path }, { holder: id, signal });
      nodes.push({ path: containerPath, access });
      continue;
    }
    const readOnly = !access.includes("w");
    const device = await sandbox.devices.add({ kind: "block", path, readOnly }, { holder: id, signal });
    nodes.push({ disk: { serial: device.id }, path: containerPath, access });
  }
  return nodes;
}
