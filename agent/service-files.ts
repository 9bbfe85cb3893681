/** Methods about files of a container. */
import { checkName } from "../src/base/ids.ts";
import type { ContainerTable } from "./container-table.ts";
import { makeDirectory, makeLink, removeFile, renameFile, setAttributes } from "./file-changes.ts";
import { listPage, missing, placeInfo } from "./file-info.ts";
import { atPath } from "./file-walk.ts";
import type { Files } from "./files.ts";
import type { Handlers } from "./methods.ts";

type FileHandlers = Pick<
  Handlers,
  | "closeFile"
  | "commitFile"
  | "listDirectory"
  | "makeDirectory"
  | "makeLink"
  | "openFile"
  | "readFile"
  | "removeFile"
  | "renameFile"
  | "setFileAttributes"
  | "statFile"
  | "watchFile"
  | "writeFile"
>;

export function fileHandlers(containers: ContainerTable): FileHandlers {
  const filesOf = async (containerId: string): Promise<Files> => (await containers.get(containerId)).files;
  return {
    statFile: async ({ containerId, path, follow }) => {
      const files = await filesOf(containerId);
      const info = await files.step(path, (root) => atPath(root, path, { follow }, (place) => placeInfo(path, place)));
      return { info };
    },

    listDirectory: async ({ containerId, path, after, maxEntries }, context) => {
      const files = await filesOf(containerId);
      await context.roomToSend();
      return await files.step(path, (root) =>
        atPath(root, path, { follow: true }, async ({ target }) => {
          if (target === undefined) throw missing(path);
          return await listPage(path, target.path, after, maxEntries);
        }),
      );
    },

    openFile: async ({ containerId, fileId, path, write }) => {
      const files = await filesOf(containerId);
      const id = checkName(fileId, "file id");
      const info = await files.step(path, (root) => files.open.open(root, id, path, write));
      return info === undefined ? {} : { info };
    },

    readFile: async ({ containerId, fileId, offset, maxBytes }, context) => {
      const files = await filesOf(containerId);
      await context.roomToSend();
      return await files.step(fileId, () => files.open.read(fileId, offset, maxBytes));
    },

    writeFile: async ({ containerId, fileId, offset, data }) => {
      const files = await filesOf(containerId);
      await files.step(fileId, () => files.open.write(fileId, offset, data));
      return {};
    },

    commitFile: async ({ containerId, fileId, size, attributes }) => {
      const files = await filesOf(containerId);
      await files.step(fileId, async () => files.open.commit(fileId, size, await files.attributes(attributes)));
      return {};
    },

    closeFile: async ({ containerId, fileId }) => {
      const container = await containers.find(containerId);
      await container?.files.forget(fileId);
      return {};
    },

    makeDirectory: async ({ containerId, path, parents, attributes }) => {
      const files = await filesOf(containerId);
      await files.step(path, async (root) => makeDirectory(root, path, parents, await files.attributes(attributes)));
      return {};
    },

    makeLink: async ({ containerId, path, target, attributes }) => {
      const files = await filesOf(containerId);
      await files.step(path, async (root) => makeLink(root, path, target, await files.attributes(attributes)));
      return {};
    },

    removeFile: async ({ containerId, path, recursive }, { signal }) => {
      const files = await filesOf(containerId);
      await files.step(path, (root) => removeFile(root, path, recursive, AbortSignal.any([signal, files.closed])));
      return {};
    },

    renameFile: async ({ containerId, path, newPath }) => {
      const files = await filesOf(containerId);
      await files.step(path, (root) => renameFile(root, path, newPath));
      return {};
    },

    setFileAttributes: async ({ containerId, path, attributes }) => {
      const files = await filesOf(containerId);
      await files.step(path, async (root) => setAttributes(root, path, await files.attributes(attributes)));
      return {};
    },

    watchFile: async ({ containerId, watchId, path, afterSequence, waitMs }, { signal }) => {
      const files = await filesOf(containerId);
      const id = checkName(watchId, "watch id");
      return { events: await files.watch({ id, path, after: afterSequence, waitMs }, signal) };
    },
  };
}
