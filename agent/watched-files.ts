/**
 * Watches of files and directories. Each keeps a bounded number of events until its reader has acknowledged them; when there are
 * more, the oldest fall away and the reader is told that some are missing.
 *
 * The kernel's own queue is bounded too, and Node does not say when it was full. But it cannot have been full unless as many events as
 * it holds are brought at once: that many in one turn count as an overflow.
 */
import { type FSWatcher, watch } from "node:fs";
import { lstat, readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { fileLimits, linkLimits } from "../src/base/limits.ts";
import { type FileEventSchema, FileEventKind as Kind } from "../src/protocol/index.ts";
import { shown } from "./file-errors.ts";
import { missing } from "./file-info.ts";
import { atPath, type HeldFile, type HoldRoot, holdAgain, letGo } from "./file-walk.ts";
import { Turns } from "./turns.ts";

type Event = MessageInitShape<typeof FileEventSchema>;

/** As the kernel has it unless it was told otherwise; others of the agent's watches share it. */
const KERNEL_QUEUE_DEFAULT = 16_384;

const BEGINNING = { isGone: false, sequence: 0n, told: 0n, waiting: 0, wake: (): void => {} };

interface Watch {
  readonly watcher: FSWatcher;
  readonly held: HeldFile;
  readonly isDirectory: boolean;
  isGone: boolean;
  events: Event[];
  /** Of the newest event, and of the newest that was told. */
  sequence: bigint;
  told: bigint;
  /** Events are sorted out one after the other, so that they stay in their order. */
  readonly turns: Turns;
  waiting: number;
  wake: () => void;
  readonly lease: NodeJS.Timeout;
}

export class WatchedFiles {
  readonly #watches = new Map<string, Promise<Watch>>();
  #kernelQueue = KERNEL_QUEUE_DEFAULT;
  /** Events of all watches in this turn. */
  #burst = 0;

  /** Begins the watch; one that is there already goes on. A reader that comes back too late is told that it has missed something. */
  async open(root: HoldRoot, id: string, path: string, after: bigint): Promise<void> {
    if (!this.#watches.has(id) && this.#watches.size >= fileLimits.watchesMax) {
      throw new BelljarError("AGENT_FAILED", `${this.#watches.size} watches are open, as many as may be`);
    }
    const opening = this.#watches.get(id) ?? this.#open(root, id, path, after);
    this.#watches.set(id, opening);
    try {
      await opening;
    } catch (error) {
      this.#watches.delete(id);
      throw error;
    }
  }

  /** Events after `after`; waits for the first one. */
  async next(
    request: { readonly id: string; readonly path: string; readonly after: bigint; readonly waitMs: number },
    signal: AbortSignal,
  ): Promise<Event[]> {
    const watch = await this.#watches.get(request.id);
    if (watch === undefined) throw new BelljarError("FILE_NOT_FOUND", `${shown(request.path)} is not watched any more`);
    watch.lease.refresh();
    watch.events = watch.events.filter(({ sequence }) => (sequence ?? 0n) > request.after);
    if (watch.events.length === 0) await waitForEvent(watch, Math.min(request.waitMs, linkLimits.longPollMs), signal);
    watch.lease.refresh();
    // Of a directory that goes while it is held the kernel says nothing.
    if (watch.isDirectory && !watch.isGone && (await isGone(watch.held))) {
      watch.isGone = true;
      add(watch, Kind.REMOVED, "");
    }
    watch.told = watch.sequence;
    return watch.events;
  }

  /** Nothing there is success. */
  async close(id: string): Promise<void> {
    const opening = this.#watches.get(id);
    if (opening === undefined) return;
    this.#watches.delete(id);
    const watch = await opening.catch(() => undefined);
    if (watch === undefined) return;
    clearTimeout(watch.lease);
    watch.watcher.close();
    watch.wake();
    await letGo(watch.held);
  }

  async closeAll(): Promise<void> {
    for (const id of [...this.#watches.keys()]) await this.close(id).catch(() => {});
  }

  async #open(root: HoldRoot, id: string, path: string, after: bigint): Promise<Watch> {
    const limit = await readFile("/proc/sys/fs/inotify/max_queued_events", "latin1").catch(() => "");
    this.#kernelQueue = Number.parseInt(limit, 10) || KERNEL_QUEUE_DEFAULT;
    return await atPath(root, path, { follow: true }, async ({ target }) => {
      if (target === undefined) throw missing(path);
      const held = await holdAgain(target);
      try {
        const watcher = watch(held.path, { persistent: false, encoding: "utf8" });
        const lease = setTimeout(() => void this.close(id).catch(() => {}), fileLimits.openLeaseMs);
        lease.unref();
        const isDirectory = target.stats.isDirectory();
        const watched: Watch = { watcher, held, isDirectory, events: [], ...BEGINNING, turns: new Turns(), lease };
        watched.sequence = after;
        if (after > 0n) add(watched, Kind.OVERFLOW, "");
        watcher.on("change", (type, name) => this.#happened(watched, type, name));
        watcher.on("error", () => add(watched, Kind.OVERFLOW, ""));
        return watched;
      } catch (error) {
        await letGo(held);
        throw hasErrno(error, "ENOSPC")
          ? new BelljarError("AGENT_FAILED", `${shown(path)}: the guest has no room for one watch more`)
          : error;
      }
    });
  }

  #happened(watch: Watch, type: string, name: string | Buffer | null): void {
    if (this.#burst === 0) {
      setImmediate(() => {
        this.#burst = 0;
      });
    }
    this.#burst += 1;
    // Some room for what other watches of the agent bring.
    if (this.#burst === Math.floor(this.#kernelQueue * 0.9)) this.#overflowAll();
    const text = watch.isDirectory && name !== null ? name.toString() : "";
    // A container can make events faster than they are sorted out.
    if (watch.waiting >= fileLimits.watchEventsMax) {
      add(watch, Kind.OVERFLOW, "");
      return;
    }
    watch.waiting += 1;
    void watch.turns.take(async () => {
      add(watch, ...(await whatBecame(watch, type, text)));
      watch.waiting -= 1;
    });
  }

  #overflowAll(): void {
    for (const opening of this.#watches.values()) {
      opening.then(
        (watch) => add(watch, Kind.OVERFLOW, ""),
        () => {},
      );
    }
  }
}

/**
 * What is there now says whether a name came or went. An event of the watched file itself comes with the last part of the path that
 * it is watched by, which is a number, and perhaps a name too.
 */
async function whatBecame({ held, isDirectory }: Watch, type: string, name: string): Promise<[Kind, string]> {
  const isThere = await lstat(`${held.path}/${name}`).then(
    () => isDirectory,
    () => false,
  );
  if (isDirectory && (isThere || name !== basename(held.path))) {
    if (type === "change") return [Kind.CHANGED, name];
    return [isThere ? Kind.CREATED : Kind.REMOVED, name];
  }
  return [type === "change" && !(await isGone(held)) ? Kind.CHANGED : Kind.REMOVED, ""];
}

/** No name leads to it any more. */
async function isGone(held: HeldFile): Promise<boolean> {
  return (await stat(held.path, { bigint: true })).nlink === 0n;
}

function add(watch: Watch, kind: Kind, name: string): void {
  const last = watch.events.at(-1);
  // The same once more tells nothing new, as long as nobody has seen the first.
  if (last?.kind === kind && last.name === name && watch.sequence > watch.told) return;
  watch.sequence += 1n;
  watch.events.push({ sequence: watch.sequence, kind, name });
  if (watch.events.length > fileLimits.watchEventsMax) {
    const [, second, ...rest] = watch.events;
    // The oldest that is left says that those before it are missing.
    if (second !== undefined) watch.events = [{ ...second, kind: Kind.OVERFLOW, name: "" }, ...rest];
  }
  watch.wake();
}

async function waitForEvent(watch: Watch, waitMs: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  watch.wake = resolve;
  const timer = setTimeout(resolve, waitMs);
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}
