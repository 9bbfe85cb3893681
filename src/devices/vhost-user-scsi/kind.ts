/** A SCSI controller with its disks in another program, on a socket of the user's. */
import type { Field } from "../../base/index.ts";
import { checkSocket } from "../back-end-socket.ts";
import type { DeviceKind } from "../kind.ts";

export interface VhostUserScsiConfig {
  readonly kind: "vhost-user-scsi";
  readonly socketPath: string;
}

export const vhostUserScsi: DeviceKind<VhostUserScsiConfig> = {
  decode: (field: Field) => ({
    kind: "vhost-user-scsi",
    socketPath: field.field("socketPath").string({ minLength: 1, maxLength: 4_096 }),
  }),
  check: async (config) => {
    await checkSocket(config.socketPath);
    return { key: `socket:${config.socketPath}`, config };
  },
  plug: ({ socketPath }, id) => ({ device: { kind: "vhost-user-scsi", id, socketPath }, modules: [] }),
};
