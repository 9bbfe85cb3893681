/** Single calls about files, behind the daemon. Open files live in the guest: a lost daemon is waited for, and the same is asked again. */
import { apiLimits, fileLimits, linkLimits } from "../../base/index.ts";
import type { FileCallOptions, FileCalls } from "../../container/index.ts";
import { fromDirectoryPage, fromFileEvent, fromFileInfo, toFileAttributes } from "../../daemon/index.ts";
import type { DaemonLink, LinkCallOptions, MakeCall } from "./daemon-link.ts";

/** How a call is made: what it does, whether it may be made twice, and how long it may take. */
type How = Pick<LinkCallOptions, "what"> & Partial<Pick<LinkCallOptions, "repeatable" | "timeoutMs">>;

export function connectedFileCalls(
  link: DaemonLink,
  container: { readonly sandbox: string; readonly container: string },
): FileCalls {
  const call = <T>(how: How, options: FileCallOptions | undefined, make: MakeCall<T>): Promise<T> =>
    link.call({ repeatable: true, timeoutMs: apiLimits.callTimeoutMs, ...how, signal: options?.signal }, make);
  return {
    stat: async ({ path, follow }, given) => {
      const { info } = await call({ what: "a file was asked for" }, given, ({ file }, options) =>
        file.statFile({ container, path, follow }, options),
      );
      return fromFileInfo(info);
    },
    list: async ({ path, after }, given) =>
      fromDirectoryPage(
        await call({ what: "a directory was listed" }, given, ({ file }, options) =>
          file.listDirectory({ container, path, after }, options),
        ),
      ),
    open: async ({ id, path, write }, given) => {
      const { info } = await call({ what: "a file was opened" }, given, ({ file }, options) =>
        file.openFile({ container, fileId: id, path, write }, options),
      );
      return write && info === undefined ? undefined : fromFileInfo(info);
    },
    read: async ({ id, offset }, given) => {
      const { data, end } = await call({ what: "a file was read" }, given, ({ file }, options) =>
        file.readFile({ container, fileId: id, offset }, options),
      );
      return { data, end };
    },
    write: async ({ id, offset, data }, given) => {
      await call({ what: "a file was written" }, given, ({ file }, options) =>
        file.writeFile({ container, fileId: id, offset, data }, options),
      );
    },
    commit: async ({ id, sizeBytes, attributes }, given) => {
      const request = { container, fileId: id, sizeBytes, attributes: toFileAttributes(attributes) };
      await call({ what: "a file was written" }, given, ({ file }, options) => file.commitFile(request, options));
    },
    close: async ({ id }, given) => {
      await call({ what: "a file was closed" }, given, ({ file }, options) =>
        file.closeFile({ container, fileId: id }, options),
      );
    },
    makeDirectory: async ({ path, parents, attributes }, given) => {
      const request = { container, path, parents, attributes: toFileAttributes(attributes) };
      await call({ what: "a directory was made", repeatable: parents }, given, ({ file }, options) =>
        file.makeDirectory(request, options),
      );
    },
    makeLink: async ({ path, target, attributes }, given) => {
      const request = { container, path, target, attributes: toFileAttributes(attributes) };
      await call({ what: "a link was made" }, given, ({ file }, options) => file.makeLink(request, options));
    },
    remove: async ({ path, recursive }, given) => {
      const timeoutMs = recursive ? fileLimits.removeTimeoutMs : apiLimits.callTimeoutMs;
      await call({ what: "a file was removed", repeatable: false, timeoutMs }, given, ({ file }, options) =>
        file.removeFile({ container, path, recursive }, options),
      );
    },
    rename: async ({ path, newPath }, given) => {
      await call({ what: "a file was renamed", repeatable: false }, given, ({ file }, options) =>
        file.renameFile({ container, path, newPath }, options),
      );
    },
    setAttributes: async ({ path, attributes }, given) => {
      const request = { container, path, attributes: toFileAttributes(attributes) };
      await call({ what: "a file was changed" }, given, ({ file }, options) =>
        file.setFileAttributes(request, options),
      );
    },
    watch: async ({ id, path, after, waitMs }, given) => {
      const timeoutMs = linkLimits.longPollMs + linkLimits.longPollSlackMs;
      const request = { container, watchId: id, path, afterSequence: after, waitMs };
      const { events } = await call({ what: "a file was watched", timeoutMs }, given, ({ file }, options) =>
        file.watchFile(request, options),
      );
      return events.map(fromFileEvent);
    },
  };
}
