/**
 * What has happened to all sandboxes of one root, numbered: the latest events in memory for whoever watches, and in ROOT/events for
 * the next owner, so that numbers go on after a kill. An event is written before a watcher sees it; numbers have no gaps, so a
 * watcher that finds one knows that it was too slow, or came too late. A disk that cannot be written holds nothing up: what is
 * missing there is written with the next event. Nothing is synced: a host that loses power loses the last ones.
 */
import { join } from "node:path";
import {
  BelljarError,
  cancelledError,
  eventLimits,
  type Field,
  hasErrno,
  type Log,
  lifecycleStates,
  messageChain,
  parseJson,
  shownStates,
  throwIfAborted,
} from "../base/index.ts";
import type { Disk, DiskFile } from "../store/index.ts";
import type { EventsOptions, RuntimeEvent, SandboxEvent } from "./interface.ts";

export interface JournalDeps {
  readonly dir: string;
  readonly disk: Disk;
  readonly log: Log;
}

const FILE = "events";
const OLD_FILE = "events.old";
const FILE_MODE = 0o600;

export class EventJournal {
  readonly #deps: JournalDeps;
  /** The latest ones, oldest first, their numbers consecutive. */
  readonly #kept: RuntimeEvent[] = [];
  /** Numbered, and not written yet. */
  readonly #waiting: RuntimeEvent[] = [];
  /** Could not be written. */
  #unwritten: readonly RuntimeEvent[] = [];
  readonly #wakers = new Set<() => void>();
  #nextNumber = 1;
  #linesInFile = 0;
  #file: DiskFile | undefined;
  #writing: Promise<void> | undefined;
  /** Takes no more; `#isDone`: nothing more comes to watchers either. */
  #isClosed = false;
  #isDone = false;

  private constructor(deps: JournalDeps) {
    this.#deps = deps;
  }

  /** Reads what former owners have written; a line that was cut short by their death is passed over. */
  static async open(deps: JournalDeps): Promise<EventJournal> {
    const journal = new EventJournal(deps);
    for (const name of [OLD_FILE, FILE]) {
      const events = await journal.#read(name);
      if (name === FILE) journal.#linesInFile = events.length;
      for (const event of events) journal.#keep(event);
    }
    return journal;
  }

  /** Numbers an event and writes it down behind those that came before; watchers see it then. */
  add(sandboxId: string, sandboxName: string, event: SandboxEvent): void {
    if (this.#isClosed) return;
    if (this.#waiting.length >= eventLimits.keptMax) this.#waiting.shift();
    this.#waiting.push({ ...event, number: this.#nextNumber, sandboxId, sandboxName });
    this.#nextNumber += 1;
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Counts from the moment of the call, not of the first reading. */
  watch({ after, follow = true, onBegin, signal }: EventsOptions): AsyncIterable<RuntimeEvent> {
    const last = this.#nextNumber - 1;
    if (after !== undefined && (!Number.isSafeInteger(after) || after < 0)) {
      throw new BelljarError("INVALID_ARGUMENT", `${after} is no number of an event`);
    }
    if (after !== undefined && after > last) {
      throw new BelljarError("INVALID_ARGUMENT", `there is no event ${after} yet; the last one is ${last}`, {
        facts: { after, last },
      });
    }
    const begin = after ?? (follow ? last : 0);
    onBegin?.(begin);
    return this.#follow(begin + 1, follow ? undefined : last, signal);
  }

  /** Everything is written, watchers end once they have read it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#writing;
    this.#isDone = true;
    this.#wake();
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  /** @param until number of the last event wanted; none ends it unless told */
  async *#follow(
    from: number,
    until: number | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<RuntimeEvent> {
    let next = from;
    let wake = (): void => {};
    const onChange = (): void => wake();
    this.#wakers.add(onChange);
    signal?.addEventListener("abort", onChange, { once: true });
    try {
      while (until === undefined || next <= until) {
        throwIfAborted(signal);
        const first = this.#kept[0]?.number ?? next;
        const event = this.#kept[Math.max(0, next - first)];
        if (event !== undefined) {
          next = event.number + 1;
          yield event;
          continue;
        }
        if (this.#isDone) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        if (signal?.aborted === true) throw cancelledError(signal);
      }
    } finally {
      signal?.removeEventListener("abort", onChange);
      this.#wakers.delete(onChange);
    }
  }

  #keep(event: RuntimeEvent): void {
    const last = this.#kept.at(-1)?.number;
    // Written twice, since the first time failed half way.
    if (last !== undefined && event.number <= last) return;
    // Behind a hole, of a host that lost power, they begin anew.
    if (last !== undefined && event.number > last + 1) this.#kept.length = 0;
    this.#kept.push(event);
    if (this.#kept.length > eventLimits.keptMax) this.#kept.shift();
    this.#nextNumber = Math.max(this.#nextNumber, event.number + 1);
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0);
      await this.#write([...this.#unwritten, ...batch]);
      for (const event of batch) this.#keep(event);
      this.#wake();
    }
  }

  async #write(events: readonly RuntimeEvent[]): Promise<void> {
    const { dir, disk, log } = this.#deps;
    try {
      if (this.#linesInFile >= eventLimits.keptMax) {
        await this.#file?.close();
        this.#file = undefined;
        await disk.rename(join(dir, FILE), join(dir, OLD_FILE));
        this.#linesInFile = 0;
      }
      this.#file ??= await this.#openFile();
      // The line feed in front ends what a killed owner may have left of a line.
      const lines = events.map((event) => `\n${JSON.stringify(event)}`);
      await this.#file.write(Buffer.from(lines.join("")));
      this.#linesInFile += events.length;
      this.#unwritten = [];
    } catch (error) {
      this.#unwritten = events.slice(-eventLimits.keptMax);
      log.warn("events could not be written", { cause: messageChain(error).join(": ") });
    }
  }

  async #openFile(): Promise<DiskFile> {
    const path = join(this.#deps.dir, FILE);
    try {
      return await this.#deps.disk.append(path);
    } catch (error) {
      if (!hasErrno(error, "ENOENT")) throw error;
      return await this.#deps.disk.create(path, FILE_MODE);
    }
  }

  async #read(name: string): Promise<RuntimeEvent[]> {
    const { dir, disk, log } = this.#deps;
    let bytes: Uint8Array;
    try {
      bytes = await disk.read(join(dir, name), eventLimits.fileMaxBytes);
    } catch (error) {
      if (!hasErrno(error, "ENOENT")) {
        log.warn("events of former owners could not be read", { cause: messageChain(error).join(": ") });
      }
      return [];
    }
    const events: RuntimeEvent[] = [];
    for (const line of Buffer.from(bytes).toString("utf8").split("\n")) {
      if (line === "") continue;
      try {
        events.push(decodeEvent(parseJson(line, name, "STATE_CORRUPT")));
      } catch (error) {
        log.debug("a line of the events is passed over", { cause: messageChain(error).join(": ") });
      }
    }
    return events;
  }

  #wake(): void {
    for (const wake of this.#wakers) wake();
  }
}

function decodeEvent(line: Field): RuntimeEvent {
  const common = {
    number: line.field("number").integer({ min: 1 }),
    sandboxId: line.field("sandboxId").string(),
    sandboxName: line.field("sandboxName").string(),
    atMs: line.field("atMs").number(),
  };
  const state = (): (typeof lifecycleStates)[number] => line.field("state").oneOf(lifecycleStates);
  const shown = (): (typeof shownStates)[number] => line.field("state").oneOf(shownStates);
  const kind = line.field("kind").oneOf(["created", "renamed", "state", "container", "failed", "denied", "deleted"]);
  switch (kind) {
    case "created":
      return { ...common, kind, image: line.field("image").string() };
    case "renamed":
      return { ...common, kind, oldName: line.field("oldName").string() };
    case "state":
      return { ...common, kind, state: shown() };
    case "container":
      return { ...common, kind, containerId: line.field("containerId").string(), state: state() };
    case "failed":
      return {
        ...common,
        kind,
        part: line.field("part").oneOf(["vmm", "agent"]),
        message: line.field("message").string(),
      };
    case "denied":
      return { ...common, kind, packets: line.field("packets").integer({ min: 0 }) };
    case "deleted":
      return { ...common, kind };
  }
}
