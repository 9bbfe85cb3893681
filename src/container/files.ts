/** Files of a container, made of single calls: streams that are read and written piece by piece, several pieces under way at once. */
import { posix } from "node:path";
import { BelljarError, fileLimits, linkLimits, newId, throwIfAborted } from "../base/index.ts";
import type {
  DirectoryEntry,
  DirectoryList,
  FileAttributes,
  FileCallOptions,
  FileCalls,
  FileEvent,
  FileInfo,
  FilePiece,
  Files,
} from "./files-types.ts";

export class ContainerFiles implements Files {
  readonly calls: FileCalls;

  constructor(calls: FileCalls) {
    this.calls = calls;
  }

  async read(path: string, options: FileCallOptions = {}): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let total = 0;
    for await (const piece of this.#pieces(path, options.signal)) {
      total += piece.length;
      if (total > fileLimits.readMaxBytes) {
        throw new BelljarError("FILE_TOO_LARGE", `${JSON.stringify(path)} is larger than what is kept in memory`, {
          facts: { maxBytes: fileLimits.readMaxBytes },
        });
      }
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  }

  readStream(path: string, options: FileCallOptions = {}): ReadableStream<Uint8Array> {
    return ReadableStream.from(this.#pieces(path, options.signal));
  }

  async write(
    path: string,
    data: string | Uint8Array | AsyncIterable<Uint8Array>,
    options: { readonly parents?: boolean | undefined } & FileAttributes & FileCallOptions = {},
  ): Promise<void> {
    const { parents = true, signal, ...attributes } = options;
    const id = newId();
    const underWay = new Set<Promise<void>>();
    let renewal: NodeJS.Timeout | undefined;
    let isClosed = false;
    try {
      await this.#openNew(id, path, parents, signal);
      // Where the data comes from may be slow.
      renewal = keepOpen(() => this.calls.write({ id, offset: 0, data: new Uint8Array(0) }));
      let sizeBytes = 0;
      for await (const piece of fullPieces(data)) {
        throwIfAborted(signal);
        const sent = this.calls.write({ id, offset: sizeBytes, data: piece }, { signal });
        sizeBytes += piece.length;
        underWay.add(sent);
        sent.then(
          () => underWay.delete(sent),
          () => {},
        );
        if (underWay.size >= fileLimits.requestsAhead) await Promise.race(underWay);
      }
      await Promise.all(underWay);
      await this.calls.commit({ id, sizeBytes, attributes }, { signal });
      isClosed = true;
    } finally {
      clearInterval(renewal);
      await Promise.allSettled(underWay);
      if (!isClosed) await this.#close(id);
    }
  }

  async #openNew(id: string, path: string, parents: boolean, signal: AbortSignal | undefined): Promise<void> {
    try {
      await this.calls.open({ id, path, write: true }, { signal });
    } catch (error) {
      if (!parents || BelljarError.from(error).reason !== "FILE_NOT_FOUND") throw error;
      await this.calls.makeDirectory({ path: posix.dirname(path), parents: true, attributes: {} }, { signal });
      await this.calls.open({ id, path, write: true }, { signal });
    }
  }

  async list(path: string, options: FileCallOptions = {}): Promise<DirectoryList> {
    const entries: DirectoryEntry[] = [];
    for (let after = ""; ; after = entries.at(-1)?.name ?? "") {
      const page = await this.calls.list({ path, after }, options);
      entries.push(...page.entries);
      // A page may have become empty while it was made; there is no name to go on from, and nothing left to tell.
      if (!page.more || page.entries.length === 0) return { entries, unnameable: page.unnameable };
      if (entries.length > fileLimits.directoryMaxEntries) {
        throw new BelljarError("FILE_TOO_LARGE", `${JSON.stringify(path)} has too many entries to be listed`, {
          facts: { maxEntries: fileLimits.directoryMaxEntries },
        });
      }
    }
  }

  async stat(
    path: string,
    { follow = true, signal }: { readonly follow?: boolean | undefined } & FileCallOptions = {},
  ): Promise<FileInfo> {
    return await this.calls.stat({ path, follow }, { signal });
  }

  async makeDirectory(
    path: string,
    options: { readonly parents?: boolean | undefined } & FileAttributes & FileCallOptions = {},
  ): Promise<void> {
    const { parents = false, signal, ...attributes } = options;
    await this.calls.makeDirectory({ path, parents, attributes }, { signal });
  }

  async makeLink(path: string, target: string, options: FileAttributes & FileCallOptions = {}): Promise<void> {
    const { signal, ...attributes } = options;
    await this.calls.makeLink({ path, target, attributes }, { signal });
  }

  async remove(
    path: string,
    { recursive = false, signal }: { readonly recursive?: boolean | undefined } & FileCallOptions = {},
  ): Promise<void> {
    await this.calls.remove({ path, recursive }, { signal });
  }

  async rename(path: string, newPath: string, options: FileCallOptions = {}): Promise<void> {
    await this.calls.rename({ path, newPath }, options);
  }

  async setAttributes(path: string, attributes: FileAttributes, options: FileCallOptions = {}): Promise<void> {
    await this.calls.setAttributes({ path, attributes }, options);
  }

  async watch(path: string, options: FileCallOptions = {}): Promise<AsyncIterable<FileEvent>> {
    const id = newId();
    await this.calls.watch({ id, path, after: 0n, waitMs: 0 }, options);
    return this.#events(id, path, options);
  }

  async *#events(id: string, path: string, options: FileCallOptions): AsyncGenerator<FileEvent> {
    try {
      for (let after = 0n; ; ) {
        const events = await this.calls.watch({ id, path, after, waitMs: linkLimits.longPollMs }, options);
        for (const { sequence, kind, name } of events) {
          after = sequence;
          yield { kind, name };
        }
      }
    } finally {
      await this.#close(id);
    }
  }

  async *#pieces(path: string, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const id = newId();
    const ahead: Promise<FilePiece>[] = [];
    let renewal: NodeJS.Timeout | undefined;
    let offset = 0;
    const ask = (): void => {
      const answer = this.calls.read({ id, offset }, { signal });
      // Those after the end, or after a failure, are nobody's.
      answer.catch(() => {});
      ahead.push(answer);
      offset += fileLimits.chunkMaxBytes;
    };
    try {
      const info = await this.calls.open({ id, path, write: false }, { signal });
      // Who reads may be slow. At the end there is nothing to read.
      renewal = keepOpen(() => this.calls.read({ id, offset: info?.sizeBytes ?? 0 }));
      // As many as the file has now; it may have more or fewer by then.
      const expected = Math.floor((info?.sizeBytes ?? 0) / fileLimits.chunkMaxBytes) + 1;
      for (;;) {
        while (
          ahead.length < fileLimits.requestsAhead &&
          (ahead.length === 0 || offset / fileLimits.chunkMaxBytes < expected)
        ) {
          ask();
        }
        const piece = await ahead.shift();
        if (piece === undefined) return;
        if (piece.data.length > 0) yield piece.data;
        if (piece.end) return;
        if (piece.data.length < fileLimits.chunkMaxBytes) {
          throw new BelljarError("AGENT_PROTOCOL", "a piece of a file is shorter than was asked for");
        }
      }
    } finally {
      clearInterval(renewal);
      await Promise.allSettled(ahead);
      await this.#close(id);
    }
  }

  /** What cannot be closed now closes by itself. */
  async #close(id: string): Promise<void> {
    await this.calls.close({ id }).catch(() => {});
  }
}

/** A failure shows at the next piece. */
function keepOpen(touch: () => Promise<unknown>): NodeJS.Timeout {
  return setInterval(() => void touch().catch(() => {}), fileLimits.openRenewMs).unref();
}

/** The same bytes in pieces of the size that one call takes. */
async function* fullPieces(data: string | Uint8Array | AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const max = fileLimits.chunkMaxBytes;
  if (typeof data === "string" || data instanceof Uint8Array) {
    const bytes = typeof data === "string" ? Buffer.from(data) : data;
    for (let offset = 0; offset < bytes.length; offset += max) yield bytes.subarray(offset, offset + max);
    return;
  }
  let waiting: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of data) {
    for (let rest = chunk; rest.length > 0; ) {
      const part = rest.subarray(0, max - length);
      // Copied: whoever made the stream may use its buffer again.
      waiting.push(Uint8Array.from(part));
      length += part.length;
      rest = rest.subarray(part.length);
      if (length < max) continue;
      yield Buffer.concat(waiting);
      waiting = [];
      length = 0;
    }
  }
  if (length > 0) yield Buffer.concat(waiting);
}
