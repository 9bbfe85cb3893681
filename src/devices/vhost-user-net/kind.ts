/** A network device with its other end in another program, on a socket of the user's. */
import { randomBytes } from "node:crypto";
import { BelljarError, type Field } from "../../base/index.ts";
import { checkSocket } from "../back-end-socket.ts";
import type { DeviceKind } from "../kind.ts";

export interface VhostUserNetConfig {
  readonly kind: "vhost-user-net";
  readonly socketPath: string;
  /** A random one unless told. */
  readonly macAddress?: string | undefined;
}

const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

export const vhostUserNet: DeviceKind<VhostUserNetConfig> = {
  decode: (field: Field) => ({
    kind: "vhost-user-net",
    socketPath: field.field("socketPath").string({ minLength: 1, maxLength: 4_096 }),
    macAddress: field.field("macAddress").optional((address) => address.string({ pattern: MAC_ADDRESS })),
  }),
  check: async (config) => {
    const macAddress = (config.macAddress ?? randomAddress()).toLowerCase();
    // The lowest bit of the first byte is a group's.
    if (!MAC_ADDRESS.test(macAddress) || Number.parseInt(macAddress.slice(0, 2), 16) % 2 === 1) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `${JSON.stringify(macAddress)} is not the address of a network device`,
      );
    }
    await checkSocket(config.socketPath);
    return { key: `socket:${config.socketPath}`, config: { ...config, macAddress } };
  },
  plug: ({ socketPath, macAddress = "" }, id) => ({
    device: { kind: "vhost-user-net", id, socketPath, macAddress },
    modules: ["virtio_net"],
    noNodes: true,
  }),
};

/** Of those that anybody may give: the second lowest bit of the first byte is set. */
function randomAddress(): string {
  const bytes = [0x02, ...randomBytes(5)];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
