/** Single calls about files, as the guest's agent answers them. What it says is checked: it may lie. */
import type { AgentCaller, AgentResponse } from "../agent-client/index.ts";
import { BelljarError, fileLimits, linkLimits } from "../base/index.ts";
import {
  FileEventKind,
  type FileEvent as WireEvent,
  type FileInfo as WireInfo,
  FileType as WireType,
} from "../protocol/index.ts";
import type {
  DirectoryPage,
  FileAttributes,
  FileCalls,
  FileEvent,
  FileInfo,
  FileType,
  NumberedFileEvent,
} from "./files-types.ts";

/** @param agent refuses what the present state does not allow */
export function guestFileCalls(agent: AgentCaller, containerId: string): FileCalls {
  return {
    stat: async ({ path, follow }, options) => {
      const { info } = await agent.call("statFile", { containerId, path, follow }, options);
      return toInfo(info);
    },
    list: async ({ path, after }, options) => {
      const request = { containerId, path, after, maxEntries: fileLimits.pageMaxEntries };
      return toPage(await agent.call("listDirectory", request, options), after);
    },
    open: async ({ id, path, write }, options) => {
      const { info } = await agent.call("openFile", { containerId, fileId: id, path, write }, options);
      return write && info === undefined ? undefined : toInfo(info);
    },
    read: async ({ id, offset }, options) => {
      const maxBytes = fileLimits.chunkMaxBytes;
      const request = { containerId, fileId: id, offset: toOffset(offset), maxBytes };
      const { data, end } = await agent.call("readFile", request, options);
      if (data.length > maxBytes) throw lie("more of a file than was asked for");
      return { data, end };
    },
    write: async ({ id, offset, data }, options) => {
      if (data.length > fileLimits.chunkMaxBytes) {
        throw new BelljarError("INVALID_ARGUMENT", `${data.length} bytes are more than may be written at once`, {
          facts: { maxBytes: fileLimits.chunkMaxBytes },
        });
      }
      await agent.call("writeFile", { containerId, fileId: id, offset: toOffset(offset), data }, options);
    },
    commit: async ({ id, sizeBytes, attributes }, options) => {
      const request = { containerId, fileId: id, size: toOffset(sizeBytes), attributes: fromAttributes(attributes) };
      await agent.call("commitFile", request, options);
    },
    close: async ({ id }, options) => {
      await agent.call("closeFile", { containerId, fileId: id }, options);
    },
    makeDirectory: async ({ path, parents, attributes }, options) => {
      const request = { containerId, path, parents, attributes: fromAttributes(attributes) };
      await agent.call("makeDirectory", request, options);
    },
    makeLink: async ({ path, target, attributes }, options) => {
      await agent.call("makeLink", { containerId, path, target, attributes: fromAttributes(attributes) }, options);
    },
    remove: async ({ path, recursive }, options) => {
      const timeoutMs = recursive ? fileLimits.removeTimeoutMs : linkLimits.callTimeoutMs;
      await agent.call("removeFile", { containerId, path, recursive }, { ...options, timeoutMs });
    },
    rename: async ({ path, newPath }, options) => {
      await agent.call("renameFile", { containerId, path, newPath }, options);
    },
    setAttributes: async ({ path, attributes }, options) => {
      await agent.call("setFileAttributes", { containerId, path, attributes: fromAttributes(attributes) }, options);
    },
    watch: async ({ id, path, after, waitMs }, options) => {
      const { events } = await agent.call(
        "watchFile",
        {
          containerId,
          watchId: id,
          path,
          afterSequence: after,
          waitMs: Math.min(Math.max(0, waitMs), linkLimits.longPollMs),
        },
        { ...options, timeoutMs: linkLimits.longPollMs + linkLimits.longPollSlackMs },
      );
      return toEvents(events, after);
    },
  };
}

const types: { readonly [type in WireType]?: FileType } = {
  [WireType.REGULAR]: "file",
  [WireType.DIRECTORY]: "directory",
  [WireType.LINK]: "link",
  [WireType.BLOCK_DEVICE]: "block-device",
  [WireType.CHARACTER_DEVICE]: "character-device",
  [WireType.FIFO]: "fifo",
  [WireType.SOCKET]: "socket",
};

const kinds: { readonly [kind in FileEventKind]?: FileEvent["kind"] } = {
  [FileEventKind.CREATED]: "created",
  [FileEventKind.CHANGED]: "changed",
  [FileEventKind.REMOVED]: "removed",
  [FileEventKind.OVERFLOW]: "overflow",
};

function toInfo(wire: WireInfo | undefined): FileInfo {
  const type = wire === undefined ? undefined : types[wire.type];
  if (wire === undefined || type === undefined) throw lie("a file without a type");
  const { mode, uid, gid, size, modifiedMs, linkTarget } = wire;
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw lie("a file larger than any");
  if (type === "link" && !isPath(linkTarget)) throw lie("a link that cannot be");
  return {
    type,
    mode: mode & 0o7777,
    uid,
    gid,
    sizeBytes: Number(size),
    modifiedAtMs: Number.isFinite(modifiedMs) ? Math.max(-TIME_MAX_MS, Math.min(TIME_MAX_MS, modifiedMs)) : 0,
    ...(type === "link" ? { linkTarget } : {}),
  };
}

/** As far as Date reaches. */
const TIME_MAX_MS = 8.64e15;

function isPath(text: string): boolean {
  return text !== "" && !text.includes("\0") && Buffer.byteLength(text) <= fileLimits.pathMaxBytes;
}

/** Names are single components, in order: whoever makes files of them cannot be led elsewhere, nor round in circles. */
function toPage(answer: AgentResponse<"listDirectory">, after: string): DirectoryPage {
  if (answer.entries.length > fileLimits.pageMaxEntries) throw lie("more entries than were asked for");
  let last = Buffer.from(after);
  const entries = answer.entries.map(({ name, info }) => {
    const bytes = Buffer.from(name);
    const isName =
      name !== "." && name !== ".." && !name.includes("/") && isPath(name) && bytes.length <= NAME_MAX_BYTES;
    if (!isName || Buffer.compare(bytes, last) <= 0) throw lie("an entry with a name that cannot be");
    last = bytes;
    return { name, info: toInfo(info) };
  });
  return { entries, more: answer.more, unnameable: answer.unnameable };
}

const NAME_MAX_BYTES = 255;

function toEvents(events: readonly WireEvent[], after: bigint): readonly NumberedFileEvent[] {
  if (events.length > fileLimits.watchEventsMax) throw lie("more events than it keeps");
  let last = after;
  return events.map(({ sequence, kind: wireKind, name }) => {
    const kind = kinds[wireKind];
    if (kind === undefined || sequence <= last || name.includes("/") || Buffer.byteLength(name) > NAME_MAX_BYTES) {
      throw lie("an event that cannot be");
    }
    last = sequence;
    return { sequence, kind, name };
  });
}

function fromAttributes({ mode, user, modifiedAtMs }: FileAttributes): {
  readonly mode?: number;
  readonly user?: string;
  readonly modifiedMs?: number;
} {
  if (mode !== undefined && (!Number.isInteger(mode) || mode < 0 || mode > 0o7777)) {
    throw new BelljarError("INVALID_ARGUMENT", `${mode} is not a mode of a file`);
  }
  if (modifiedAtMs !== undefined && !(Math.abs(modifiedAtMs) <= TIME_MAX_MS)) {
    throw new BelljarError("INVALID_ARGUMENT", `${modifiedAtMs} is not a time`);
  }
  return {
    ...(mode === undefined ? {} : { mode }),
    ...(user === undefined ? {} : { user }),
    ...(modifiedAtMs === undefined ? {} : { modifiedMs: modifiedAtMs }),
  };
}

function toOffset(offset: number): bigint {
  if (Number.isSafeInteger(offset) && offset >= 0) return BigInt(offset);
  throw new BelljarError("INVALID_ARGUMENT", `${offset} is not an offset in a file`);
}

function lie(what: string): BelljarError {
  return new BelljarError("AGENT_PROTOCOL", `the agent answered with ${what}`);
}
