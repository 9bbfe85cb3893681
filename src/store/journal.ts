/**
 * Intents of multi-step operations on one sandbox: written before the first step, so that whoever opens the sandbox next
 * knows what to roll back or to finish. One journal per sandbox directory, under the sandbox's exclusive lock.
 *
 * Invariants:
 * - `begin` returns when the intent is on disk; only then may the first step be taken. A step is noted after it was done:
 *   the last step taken may be missing, so recovery looks at the world as well, and each of its steps can be repeated.
 * - An operation is in the file until `commit` has returned. After a failed `begin` or `commit` the file may hold the
 *   operation or not; both are correct for the reader, because nothing, or everything, of it was done.
 * - After a failed write, and behind a torn last line, nothing is appended: the file is written anew first.
 */
import { BelljarError, hasErrno, storeLimits } from "../base/index.ts";
import { type Disk, type DiskFile, systemDisk } from "./disk.ts";
import { writeFileDurably } from "./durable-file.ts";
import { corrupt } from "./envelope.ts";
import {
  decodeJournal,
  encodeJournal,
  encodeRecord,
  type JournalContent,
  type JournalEntry,
  type JournalFacts,
  type JournalRecord,
} from "./journal-format.ts";
import { Turns } from "./turns.ts";

/** One operation that is begun and not committed, by this process or by one that died. */
export class Intent {
  readonly #journal: JournalWriter;
  #entry: JournalEntry;

  constructor(journal: JournalWriter, entry: JournalEntry) {
    this.#journal = journal;
    this.#entry = entry;
  }

  get operation(): string {
    return this.#entry.operation;
  }

  get facts(): JournalFacts {
    return this.#entry.facts;
  }

  get steps(): JournalEntry["steps"] {
    return this.#entry.steps;
  }

  /** Notes a step that was done. */
  async note(step: string, facts: JournalFacts = {}): Promise<void> {
    const { id } = this.#entry;
    this.#entry = await this.#journal.record({ note: id, step, facts }, (open) => {
      const entry = open.get(id);
      if (entry === undefined) throw new BelljarError("INTERNAL", `operation ${this.operation} was committed already`);
      return { ...entry, steps: [...entry.steps, { step, facts }] };
    });
  }

  /** The operation was finished, or rolled back: nothing of it is left to do. Idempotent. */
  async commit(): Promise<void> {
    await this.#journal.end(this.#entry.id);
  }
}

export class Journal {
  readonly path: string;
  readonly #writer: JournalWriter;
  /** What earlier processes left, oldest first; each stays until it is committed. */
  readonly unfinished: readonly Intent[];

  private constructor(path: string, disk: Disk, content: JournalContent | undefined, sizeBytes: number) {
    this.path = path;
    this.#writer = new JournalWriter(path, disk, content, sizeBytes);
    this.unfinished = (content?.unfinished ?? []).map((entry) => new Intent(this.#writer, entry));
  }

  /** @throws BelljarError `STATE_CORRUPT`, `STATE_VERSION`, or what the disk failed with; no file is an empty journal */
  static async open(path: string, disk: Disk = systemDisk): Promise<Journal> {
    let bytes: Uint8Array;
    try {
      bytes = await disk.read(path, storeLimits.journalMaxBytes);
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return new Journal(path, disk, undefined, 0);
      if (hasErrno(error, "EFBIG")) throw corrupt(path, "it is larger than a journal can be", error);
      throw failed(path, "read", error);
    }
    return new Journal(path, disk, decodeJournal(bytes, path), bytes.length);
  }

  /** Writes down what is about to be done, and with what. */
  async begin(operation: string, facts: JournalFacts = {}): Promise<Intent> {
    return new Intent(this.#writer, await this.#writer.begin(operation, facts));
  }
}

class JournalWriter {
  readonly #path: string;
  readonly #disk: Disk;
  readonly #turns: Turns;
  readonly #open: Map<number, JournalEntry>;
  #lastId: number;
  #sizeBytes: number;
  /** Whether the end of the file is a known record, so that another may follow it. */
  #appendable: boolean;

  constructor(path: string, disk: Disk, content: JournalContent | undefined, sizeBytes: number) {
    this.#path = path;
    this.#disk = disk;
    this.#turns = new Turns(path);
    this.#open = new Map(content?.unfinished.map((entry) => [entry.id, entry]));
    this.#lastId = content?.lastId ?? 0;
    this.#sizeBytes = sizeBytes;
    this.#appendable = content !== undefined && !content.torn;
  }

  begin(operation: string, facts: JournalFacts): Promise<JournalEntry> {
    this.#lastId += 1;
    const id = this.#lastId;
    return this.record({ begin: id, operation, facts }, () => ({ id, operation, facts, steps: [] }));
  }

  /** Makes a record durable, then keeps the entry that `change` gives. */
  record(
    record: JournalRecord,
    change: (open: ReadonlyMap<number, JournalEntry>) => JournalEntry,
  ): Promise<JournalEntry> {
    return this.#turns.take(async () => {
      const entry = change(this.#open);
      await this.#append(encodeRecord(record), new Map(this.#open).set(entry.id, entry));
      this.#open.set(entry.id, entry);
      return entry;
    });
  }

  end(id: number): Promise<void> {
    return this.#turns.take(async () => {
      if (!this.#open.has(id)) return;
      const rest = new Map(this.#open);
      rest.delete(id);
      await this.#append(encodeRecord({ end: id }), rest);
      this.#open.delete(id);
    });
  }

  /** Adds a record at the end, or writes the file anew as it is to be after that record. */
  async #append(record: Uint8Array, open: ReadonlyMap<number, JournalEntry>): Promise<void> {
    const inPlace = this.#appendable && this.#sizeBytes + record.length <= storeLimits.journalCompactBytes;
    const bytes = inPlace ? record : encodeJournal([...open.values()]);
    if (bytes.length > storeLimits.journalMaxBytes) {
      throw new BelljarError("INTERNAL", `${this.#path} would have ${bytes.length} bytes`, {
        facts: { maxBytes: storeLimits.journalMaxBytes },
      });
    }
    this.#appendable = false;
    try {
      if (inPlace) await appendDurably(this.#path, bytes, this.#disk);
      else await writeFileDurably(this.#path, bytes, { disk: this.#disk });
    } catch (error) {
      throw failed(this.#path, "written", error);
    }
    this.#sizeBytes = inPlace ? this.#sizeBytes + bytes.length : bytes.length;
    this.#appendable = true;
  }
}

async function appendDurably(path: string, bytes: Uint8Array, disk: Disk): Promise<void> {
  const file: DiskFile = await disk.append(path);
  try {
    await file.write(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

function failed(path: string, verb: string, error: unknown): BelljarError {
  const { reason } = BelljarError.from(error);
  return new BelljarError(reason, `${path} could not be ${verb}`, { facts: { file: path }, cause: error });
}
