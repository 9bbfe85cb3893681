/** Everything that is kept on disk goes through here: the durable writer, state files and locks. */

export { canonicalJson } from "./canonical-json.ts";
export { type Disk, type DiskFile, systemDisk } from "./disk.ts";
export {
  publish,
  removeFileDurably,
  sweepTemporaryFiles,
  syncDirectory,
  TEMPORARY_MARK,
  type WriteOptions,
  writeFileDurably,
} from "./durable-file.ts";
export { decodeEnvelope, type Envelope, type EnvelopeHeader, encodeEnvelope } from "./envelope.ts";
export { KeptLock } from "./kept-lock.ts";
export { acquireLock, type FileLock, type LockOptions, withLock } from "./lock.ts";
export { decodeState, type Migration, StateFile, type StateSchema } from "./state-file.ts";
export { Turns } from "./turns.ts";
