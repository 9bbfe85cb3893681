/**
 * The list of images of one store: name to record, in one file that is replaced whole under a lock. Layers and documents
 * that no record names are garbage.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno, imageLimits } from "../base/index.ts";
import { withLock, writeFileDurably } from "../store/index.ts";
import { isDigest } from "./digest.ts";
import { Fields } from "./document.ts";

export interface ImageRecord {
  readonly manifestDigest: string;
  readonly configDigest: string;
  /** Bottom first. */
  readonly diffIds: readonly string[];
  readonly createdAt: string;
  readonly addedAtMs: number;
  readonly source: string;
}

export type ImageRecords = ReadonlyMap<string, ImageRecord>;

const VERSION = 1;

export class ImageIndex {
  readonly #path: string;
  readonly #lockPath: string;

  constructor(directory: string) {
    this.#path = join(directory, "index.json");
    this.#lockPath = join(directory, "index.lock");
  }

  /** @throws BelljarError `STATE_CORRUPT`, `STATE_VERSION` */
  async read(): Promise<ImageRecords> {
    let text: string;
    try {
      text = await readFile(this.#path, "utf8");
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return new Map();
      throw error;
    }
    return this.#decode(text);
  }

  /** Reads, changes and writes under the lock. @throws BelljarError `LOCKED` and what `read` throws */
  async change(edit: (records: Map<string, ImageRecord>) => void, signal?: AbortSignal): Promise<void> {
    const options = {
      mode: "exclusive",
      timeoutMs: imageLimits.indexLockTimeoutMs,
      what: "the list of images",
      signal,
    } as const;
    await withLock(this.#lockPath, options, async () => {
      const records = new Map(await this.read());
      edit(records);
      const images = Object.fromEntries([...records].sort(([a], [b]) => (a < b ? -1 : 1)));
      await writeFileDurably(this.#path, `${JSON.stringify({ version: VERSION, images }, undefined, 2)}\n`);
    });
  }

  #decode(text: string): ImageRecords {
    try {
      const document = new Fields(JSON.parse(text), this.#path);
      const version = document.needCount("version");
      if (version > VERSION) {
        throw new BelljarError("STATE_VERSION", `${this.#path} has version ${version}; this Belljar knows ${VERSION}`, {
          facts: { path: this.#path, version },
        });
      }
      const images = document.object("images");
      const records = new Map<string, ImageRecord>();
      for (const name of images?.keys() ?? []) {
        const fields = images?.object(name);
        if (fields !== undefined) records.set(name, decodeRecord(fields));
      }
      return records;
    } catch (error) {
      if (error instanceof BelljarError && error.reason === "STATE_VERSION") throw error;
      throw new BelljarError("STATE_CORRUPT", `${this.#path} is damaged`, {
        facts: { path: this.#path },
        cause: error,
      });
    }
  }
}

function decodeRecord(fields: Fields): ImageRecord {
  const digest = (name: string): string => checked(fields.needText(name), fields);
  return {
    manifestDigest: digest("manifestDigest"),
    configDigest: digest("configDigest"),
    diffIds: (fields.texts("diffIds") ?? []).map((value) => checked(value, fields)),
    createdAt: fields.needText("createdAt"),
    addedAtMs: fields.needCount("addedAtMs"),
    source: fields.needText("source"),
  };
}

/** Digests become file names. */
function checked(value: string, fields: Fields): string {
  if (!isDigest(value)) throw new BelljarError("STATE_CORRUPT", `${fields.what} has a digest that is none`);
  return value;
}
