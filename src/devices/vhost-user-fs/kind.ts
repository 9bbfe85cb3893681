/** A directory that the guest mounts by a tag: shared by virtiofsd, which is started for it, or by a program of the user's. */
import { realpath, stat } from "node:fs/promises";
import { BelljarError, type Field } from "../../base/index.ts";
import { checkSocket, decodeSocketPath, ownSocket } from "../back-end-socket.ts";
import type { DeviceKind } from "../kind.ts";
import { endVirtiofsd, startVirtiofsd } from "./virtiofsd.ts";

export interface VhostUserFsConfig {
  readonly kind: "vhost-user-fs";
  /** Letters, digits, dots, dashes and underscores; at most 36. */
  readonly tag: string;
  /** Of a program that runs already; or else `directory`. */
  readonly socketPath?: string | undefined;
  readonly directory?: string | undefined;
  readonly readOnly?: boolean | undefined;
  /** How long the guest may believe what it has read. */
  readonly cache?: "none" | "auto" | "always" | undefined;
}

const TAG = /^[A-Za-z0-9._-]{1,36}$/;

export const vhostUserFs: DeviceKind<VhostUserFsConfig> = {
  decode: (field: Field) => ({
    kind: "vhost-user-fs",
    tag: field.field("tag").string({ pattern: TAG }),
    socketPath: decodeSocketPath(field),
    directory: field.field("directory").optional((path) => path.string({ minLength: 1, maxLength: 4_096 })),
    readOnly: field.field("readOnly").optional((value) => value.boolean()),
    cache: field.field("cache").optional((value) => value.oneOf(["none", "auto", "always"])),
  }),

  check: async (config) => {
    const { tag, socketPath, directory } = config;
    if (!TAG.test(tag)) throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(tag)} is no tag of a directory`);
    if ((socketPath === undefined) === (directory === undefined)) {
      throw new BelljarError("INVALID_ARGUMENT", "a vhost-user-fs device has either a socket or a directory");
    }
    if (directory === undefined) {
      await checkSocket(socketPath ?? "");
      return { key: `fs:${tag}`, config };
    }
    const path = await realpath(directory).catch(() => undefined);
    if (path === undefined || !(await stat(path)).isDirectory()) {
      throw new BelljarError("DEVICE_NOT_FOUND", `there is no directory at ${directory}`, { facts: { directory } });
    }
    return { key: `fs:${tag}`, config: { ...config, directory: path, readOnly: config.readOnly === true } };
  },

  prepare: async ({ directory, readOnly = false, cache }, id, place, signal) => {
    if (directory === undefined) return undefined;
    return await startVirtiofsd({ socketPath: ownSocket(place, id), directory, readOnly, cache }, signal);
  },

  release: async (_config, id, place, backEnd) => {
    if (backEnd !== undefined) await endVirtiofsd(backEnd, ownSocket(place, id));
  },

  plug: ({ tag, socketPath }, id, place) => ({
    device: { kind: "vhost-user-fs", id, tag, socketPath: socketPath ?? ownSocket(place, id) },
    modules: ["virtiofs"],
    noNodes: true,
  }),
};
