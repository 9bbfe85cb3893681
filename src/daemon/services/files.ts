/** Files of containers over the API: each call is one of the runtime. Open files live in the guest, so a daemon may come and go. */
import type { ServiceImpl } from "@connectrpc/connect";
import { linkLimits } from "../../base/index.ts";
import type { FileCalls } from "../../container/index.ts";
import type { api } from "../../protocol/index.ts";
import type { Sandboxes } from "../../runtime/index.ts";
import type { Calls } from "../calls.ts";
import { fromBytes, fromFileAttributes, toDirectoryPage, toFileInfo } from "../wire/files.ts";
import { findContainer } from "./container.ts";

export function fileService(sandboxes: Sandboxes, calls: Calls): ServiceImpl<typeof api.FileService> {
  const find = async (ref: api.ContainerRef | undefined): Promise<FileCalls> =>
    (await findContainer(sandboxes, ref)).files.calls;
  return {
    statFile: async ({ container, path, follow }, { signal }) => ({
      info: toFileInfo(await (await find(container)).stat({ path, follow }, { signal })),
    }),
    listDirectory: async ({ container, path, after }, { signal }) =>
      toDirectoryPage(await (await find(container)).list({ path, after }, { signal })),
    openFile: async ({ container, fileId, path, write }, { signal }) => {
      const info = await (await find(container)).open({ id: fileId, path, write }, { signal });
      return info === undefined ? {} : { info: toFileInfo(info) };
    },
    readFile: async ({ container, fileId, offset }, { signal }) => {
      const { data, end } = await (await find(container)).read(
        { id: fileId, offset: fromBytes("an offset", offset) },
        { signal },
      );
      return { data, end };
    },
    writeFile: async ({ container, fileId, offset, data }, { signal }) => {
      await (await find(container)).write({ id: fileId, offset: fromBytes("an offset", offset), data }, { signal });
      return {};
    },
    commitFile: async ({ container, fileId, sizeBytes, attributes }, { signal }) => {
      const request = {
        id: fileId,
        sizeBytes: fromBytes("a size", sizeBytes),
        attributes: fromFileAttributes(attributes),
      };
      await (await find(container)).commit(request, { signal });
      return {};
    },
    closeFile: async ({ container, fileId }, { signal }) => {
      await (await find(container)).close({ id: fileId }, { signal });
      return {};
    },
    makeDirectory: async ({ container, path, parents, attributes }, { signal }) => {
      const request = { path, parents, attributes: fromFileAttributes(attributes) };
      await (await find(container)).makeDirectory(request, { signal });
      return {};
    },
    makeLink: async ({ container, path, target, attributes }, { signal }) => {
      const request = { path, target, attributes: fromFileAttributes(attributes) };
      await (await find(container)).makeLink(request, { signal });
      return {};
    },
    removeFile: async ({ container, path, recursive }, { signal }) => {
      await (await find(container)).remove({ path, recursive }, { signal });
      return {};
    },
    renameFile: async ({ container, path, newPath }, { signal }) => {
      await (await find(container)).rename({ path, newPath }, { signal });
      return {};
    },
    setFileAttributes: async ({ container, path, attributes }, { signal }) => {
      const request = { path, attributes: fromFileAttributes(attributes) };
      await (await find(container)).setAttributes(request, { signal });
      return {};
    },
    watchFile: async ({ container, watchId, path, afterSequence, waitMs }, context) => {
      const found = await find(container);
      const longest = Math.trunc(Math.min(Math.max(0, waitMs), linkLimits.longPollMs)) || 0;
      const request = { id: watchId, path, after: afterSequence, waitMs: longest };
      return { events: [...(await found.watch(request, { signal: calls.waiting(context) }))] };
    },
  };
}
