/**
 * One object's state on disk: read, written and removed as a whole, through the durable writer, in an envelope.
 *
 * Invariants:
 * - What is written can be read, and nothing of it is lost: each new state is decoded from its own bytes, and must encode
 *   to the same bytes again, before the old one is touched.
 * - Writers of one StateFile go one after the other, in the order of their calls; the sequence number grows with each.
 * - `value` is always what a reader of the file would get. After a failed write it is read again, because the last step of
 *   the writer may fail with the new state already in place.
 * - A file that is damaged or newer is never replaced or removed by `write` or `update`.
 * Two StateFiles on one path know nothing of each other: whoever writes holds the object's lock.
 */
import { BelljarError, type Decode, hasErrno, parseJson, storeLimits } from "../base/index.ts";
import { type Disk, systemDisk } from "./disk.ts";
import { removeFileDurably, writeFileDurably } from "./durable-file.ts";
import { corrupt, decodeEnvelope, encodeEnvelope, newerVersion } from "./envelope.ts";
import { Turns } from "./turns.ts";

/** Makes the body of version N + 1 out of the body of version N. */
export type Migration = Decode<unknown>;

export interface StateSchema<T> {
  /** Lower-case word that the header carries. */
  readonly kind: string;
  /** In order: the first goes from version 1 to 2. Today's version is one more than their number. */
  readonly migrations: readonly Migration[];
  /** Reads a body of today's version. */
  readonly decode: Decode<T>;
  /** The plain data that `decode` reads; the value itself unless told. */
  readonly encode?: (value: T) => unknown;
}

interface Known<T> {
  readonly value: T;
  readonly sequence: number;
}

export class StateFile<T> {
  readonly path: string;
  readonly #schema: StateSchema<T>;
  readonly #disk: Disk;
  /** What the file holds; "unread" before the first use and after a failure that could not be looked into. */
  #known: Known<T> | "absent" | "unread" = "unread";
  /** Highest number ever given out here, failed writes and removed files included. */
  #sequence = 0;
  readonly #turns: Turns;

  constructor(path: string, schema: StateSchema<T>, disk: Disk = systemDisk) {
    this.path = path;
    this.#schema = schema;
    this.#disk = disk;
    this.#turns = new Turns(path);
  }

  /** The state as of the last read or write; undefined when there is none, or it is not known. */
  get value(): T | undefined {
    return typeof this.#known === "string" ? undefined : this.#known.value;
  }

  /** Sequence number of `value`; 0 when there is none. */
  get sequence(): number {
    return typeof this.#known === "string" ? 0 : this.#known.sequence;
  }

  /** @throws BelljarError `STATE_MISSING`, `STATE_CORRUPT` or `STATE_VERSION`, or what the disk failed with */
  read(): Promise<T> {
    return this.#turns.take(async () => {
      await this.#load();
      if (typeof this.#known === "string") throw this.#missing();
      return this.#known.value;
    });
  }

  /** Replaces the state, or makes the first one. Returns it as a reader will get it. */
  write(value: T): Promise<T> {
    return this.#turns.take(async () => {
      if (this.#known === "unread") await this.#load();
      return this.#replace(value);
    });
  }

  /** Replaces the state by what `change` makes of it; nothing else is written between. */
  update(change: (current: T) => T): Promise<T> {
    return this.#turns.take(async () => {
      if (this.#known === "unread") await this.#load();
      if (typeof this.#known === "string") throw this.#missing();
      return this.#replace(change(this.#known.value));
    });
  }

  /** Removes the file, whatever it holds; success when there is none. */
  remove(): Promise<void> {
    return this.#turns.take(async () => {
      try {
        await removeFileDurably(this.path, this.#disk);
      } catch (error) {
        if (!hasErrno(error, "ENOENT")) {
          await this.#lookAgain();
          throw this.#failed("removed", error);
        }
      }
      this.#known = "absent";
    });
  }

  async #load(): Promise<void> {
    this.#known = "unread";
    this.#known = await readStateFile(this.path, this.#schema, this.#disk);
    if (this.#known !== "absent") this.#sequence = Math.max(this.#sequence, this.#known.sequence);
  }

  async #replace(value: T): Promise<T> {
    const sequence = this.#sequence + 1;
    const bytes = this.#encode(value, sequence);
    const known = this.#proveReadable(bytes);
    this.#sequence = sequence;
    try {
      await writeFileDurably(this.path, bytes, { disk: this.#disk });
    } catch (error) {
      await this.#lookAgain();
      throw this.#failed("written", error);
    }
    this.#known = known;
    return known.value;
  }

  #encode(value: T, sequence: number): Uint8Array {
    const { kind, migrations, encode } = this.#schema;
    return encodeEnvelope({ kind, version: migrations.length + 1, sequence }, encode?.(value) ?? value);
  }

  #proveReadable(bytes: Uint8Array): Known<T> {
    try {
      if (bytes.length > storeLimits.stateFileMaxBytes) {
        throw new BelljarError("INTERNAL", `${bytes.length} bytes are more than ${storeLimits.stateFileMaxBytes}`);
      }
      const known = decodeState(bytes, this.path, this.#schema);
      if (Buffer.compare(this.#encode(known.value, known.sequence), bytes) !== 0) {
        throw new BelljarError("INTERNAL", `the decoder of ${this.#schema.kind} loses or changes a part of it`);
      }
      return known;
    } catch (error) {
      throw new BelljarError("INTERNAL", `a new state of ${this.path} was not written: it could not be read back`, {
        facts: { file: this.path },
        cause: error,
      });
    }
  }

  /** After a failure the file decides what the state is. */
  async #lookAgain(): Promise<void> {
    try {
      await this.#load();
    } catch {
      // The caller gets the first error; the state stays "unread" and the next use says what is wrong.
    }
  }

  #missing(): BelljarError {
    return new BelljarError("STATE_MISSING", `${this.path} does not exist`, { facts: { file: this.path } });
  }

  #failed(verb: string, error: unknown): BelljarError {
    const { reason } = BelljarError.from(error);
    return new BelljarError(reason, `${this.path} could not be ${verb}`, { facts: { file: this.path }, cause: error });
  }
}

/** @throws BelljarError `STATE_CORRUPT` or `STATE_VERSION`, or what the disk failed with */
async function readStateFile<T>(path: string, schema: StateSchema<T>, disk: Disk): Promise<Known<T> | "absent"> {
  let bytes: Uint8Array;
  try {
    bytes = await disk.read(path, storeLimits.stateFileMaxBytes);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return "absent";
    if (["EFBIG", "EINVAL", "EISDIR", "ELOOP"].some((errno) => hasErrno(error, errno))) {
      throw corrupt(path, "it is not a regular file of a possible size", error);
    }
    const { reason } = BelljarError.from(error);
    throw new BelljarError(reason, `${path} could not be read`, { facts: { file: path }, cause: error });
  }
  return decodeState(bytes, path, schema);
}

/** Bytes of a state file, of today's version or an older one, to its value. */
export function decodeState<T>(bytes: Uint8Array, name: string, schema: StateSchema<T>): Known<T> {
  const envelope = decodeEnvelope(bytes, name);
  const today = schema.migrations.length + 1;
  if (envelope.kind !== schema.kind) throw corrupt(name, `it holds a ${envelope.kind}, not a ${schema.kind}`);
  if (envelope.version > today) throw newerVersion(name, schema.kind, envelope.version, today);
  try {
    let field = parseJson(envelope.body, schema.kind, "STATE_CORRUPT");
    for (const migrate of schema.migrations.slice(envelope.version - 1)) {
      field = field.replaced(migrate(field));
    }
    return { value: schema.decode(field), sequence: envelope.sequence };
  } catch (error) {
    // Whatever a decoder refuses is, in a file of ours, damage; anything but a BelljarError is a bug and passes.
    if (error instanceof BelljarError) throw corrupt(name, "its content is not a valid state", error);
    throw error;
  }
}
