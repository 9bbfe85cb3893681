/** Files of containers, to the wire and back. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../../base/index.ts";
import type {
  DirectoryPage,
  FileAttributes,
  FileEvent,
  FileInfo,
  FileType,
  NumberedFileEvent,
} from "../../container/index.ts";
import type { api } from "../../protocol/index.ts";
import { given } from "./given.ts";
import { incomplete } from "./info.ts";

/** A place in a file, or a size, as a client says it: numbers of the wire may be anything. @throws BelljarError `INVALID_ARGUMENT` */
export function fromBytes(what: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new BelljarError("INVALID_ARGUMENT", `${what} of ${value} is no number of bytes`);
}

export function toFileInfo(info: FileInfo): MessageInitShape<typeof api.FileInfoSchema> {
  return given({ ...info });
}

export function fromFileInfo(wire: api.FileInfo | undefined): FileInfo {
  if (wire === undefined) throw incomplete("file");
  const { mode, uid, gid, sizeBytes, modifiedAtMs, linkTarget } = wire;
  return { type: oneOf(types, wire.type), mode, uid, gid, sizeBytes, modifiedAtMs, linkTarget };
}

export function toDirectoryPage({
  entries,
  more,
  unnameable,
}: DirectoryPage): MessageInitShape<typeof api.ListDirectoryResponseSchema> {
  return { entries: entries.map(({ name, info }) => ({ name, info: toFileInfo(info) })), more, unnameable };
}

export function fromDirectoryPage({ entries, more, unnameable }: api.ListDirectoryResponse): DirectoryPage {
  return { entries: entries.map(({ name, info }) => ({ name, info: fromFileInfo(info) })), more, unnameable };
}

export function toFileAttributes(attributes: FileAttributes): MessageInitShape<typeof api.FileAttributesSchema> {
  return given({ ...attributes });
}

export function fromFileAttributes(wire: api.FileAttributes | undefined): FileAttributes {
  return wire === undefined ? {} : { mode: wire.mode, user: wire.user, modifiedAtMs: wire.modifiedAtMs };
}

export function fromFileEvent({ sequence, kind, name }: api.FileEvent): NumberedFileEvent {
  return { sequence, kind: oneOf(kinds, kind), name };
}

const types: readonly FileType[] = ["file", "directory", "link", "block-device", "character-device", "fifo", "socket"];
const kinds: readonly FileEvent["kind"][] = ["created", "changed", "removed", "overflow"];

function oneOf<T extends string>(known: readonly T[], word: string): T {
  const found = known.find((each) => each === word);
  if (found === undefined) throw new BelljarError("INTERNAL", `the daemon told of a ${JSON.stringify(word)}`);
  return found;
}
