/**
 * Copies of the host's files for one container, below a directory of the agent's that the container sees read-only. Each file
 * appears at one instant under its name, so that a process that watches the directory sees what it would see of a careful editor.
 * A copy that is a single file is written in place: a bind is of the file, whatever has its name.
 */
import { createHash } from "node:crypto";
import { chmod, chown, lchown, mkdir, open, rename, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BelljarError } from "../src/base/errors.ts";
import { mountLimits } from "../src/base/limits.ts";
import type { CopiedEntry } from "../src/protocol/index.ts";
import { Turns } from "./turns.ts";

type Kind = "file" | "directory" | "link";

interface Known {
  readonly kind: Kind;
  readonly fingerprint: string;
}

export class Copies {
  readonly #dir: string;
  /** By key, which of them are single files. */
  readonly #copies = new Map<string, { readonly isFile: boolean; readonly known: Map<string, Known> }>();
  readonly #turns = new Turns();

  /** @param dir of the container's own; made when there is something to copy */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Makes an empty one. Answers where it lies. */
  async add(key: string, isFile: boolean): Promise<string> {
    if (!/^[a-z0-9-]{1,32}$/.test(key)) throw new BelljarError("INVALID_ARGUMENT", "a copy has a name that cannot be");
    await mkdir(join(this.#dir, "staged"), { recursive: true, mode: 0o700 });
    const place = join(this.#dir, key);
    if (isFile) await writeFile(place, "", { mode: 0o600 });
    else await mkdir(place, { mode: 0o755 });
    this.#copies.set(key, { isFile, known: new Map() });
    return place;
  }

  /** @throws BelljarError `INVALID_ARGUMENT` */
  apply(key: string, entries: readonly CopiedEntry[]): Promise<void> {
    return this.#turns.take(async () => {
      const copy = this.#copies.get(key);
      if (copy === undefined) throw new BelljarError("INVALID_ARGUMENT", "the container has no copy of this name");
      checkEntries(entries, copy.isFile);
      const place = join(this.#dir, key);
      if (copy.isFile) {
        const [entry] = entries;
        if (entry !== undefined) await writeInPlace(place, entry);
        return;
      }
      await this.#applyTree(place, entries, copy.known);
    });
  }

  async #applyTree(place: string, entries: readonly CopiedEntry[], known: Map<string, Known>): Promise<void> {
    const wanted = new Set(entries.map(({ path }) => path));
    for (const entry of entries) {
      const { path } = entry;
      const kind = kindOf(entry);
      const before = known.get(path);
      const fingerprint = fingerprintOf(entry);
      if (before?.fingerprint === fingerprint) continue;
      const target = join(place, path);
      // A file takes a file's name at one instant; between a directory and anything else there is none.
      if (before !== undefined && before.kind !== kind && (before.kind === "directory" || kind === "directory")) {
        await rm(target, { recursive: true, force: true });
        for (const other of [...known.keys()]) if (other.startsWith(`${path}/`)) known.delete(other);
      }
      known.delete(path);
      if (kind === "directory") {
        await mkdir(target, { recursive: true });
        await setAttributes(target, entry);
      } else await this.#replace(target, entry);
      known.set(path, { kind, fingerprint });
    }
    // Deepest first; what they lie in may go too.
    for (const path of [...known.keys()].filter((each) => !wanted.has(each)).sort((a, b) => b.length - a.length)) {
      await rm(join(place, path), { recursive: true, force: true });
      known.delete(path);
    }
  }

  async #replace(target: string, entry: CopiedEntry): Promise<void> {
    const staged = join(this.#dir, "staged", "entry");
    await rm(staged, { recursive: true, force: true });
    if (entry.is.case === "linkTarget") {
      await symlink(entry.is.value, staged);
      await lchown(staged, entry.uid, entry.gid);
    } else {
      await writeFile(staged, entry.is.case === "data" ? entry.is.value : "");
      await setAttributes(staged, entry);
    }
    await mkdir(dirname(target), { recursive: true });
    await rename(staged, target);
  }
}

async function writeInPlace(place: string, entry: CopiedEntry): Promise<void> {
  const data = entry.is.case === "data" ? entry.is.value : new Uint8Array(0);
  const file = await open(place, "r+");
  try {
    if (data.length > 0) await file.write(data, 0, data.length, 0);
  } finally {
    await file.close();
  }
  await truncate(place, data.length);
  await setAttributes(place, entry);
}

async function setAttributes(place: string, { mode, uid, gid, modifiedMs }: CopiedEntry): Promise<void> {
  await chown(place, uid, gid);
  await chmod(place, mode & 0o7777);
  await utimes(place, modifiedMs / 1000, modifiedMs / 1000);
}

function kindOf({ is }: CopiedEntry): Kind {
  if (is.case === "data") return "file";
  return is.case === "linkTarget" ? "link" : "directory";
}

function fingerprintOf({ mode, uid, gid, modifiedMs, is }: CopiedEntry): string {
  const hash = createHash("sha256").update(JSON.stringify([mode, uid, gid, modifiedMs, is.case]));
  if (is.case === "data" || is.case === "linkTarget") hash.update(is.value);
  return hash.digest("hex");
}

function checkEntries(entries: readonly CopiedEntry[], isFile: boolean): void {
  const [first] = entries;
  const bytes = entries.reduce((sum, { is }) => sum + (is.case === "data" ? is.value.length : 0), 0);
  const isRight =
    first?.path === "" &&
    first.is.case === (isFile ? "data" : "directory") &&
    entries.length <= (isFile ? 1 : mountLimits.copyEntriesMax) &&
    bytes <= mountLimits.copyMaxBytes &&
    entries.every(({ path, is }, index) => (index === 0 || isBelow(path)) && is.case !== undefined);
  if (!isRight)
    throw new BelljarError("INVALID_ARGUMENT", "a copy has more than it may have, or leads out of its place");
}

function isBelow(path: string): boolean {
  return !path.includes("\0") && path.split("/").every((name) => name !== "" && name !== "." && name !== "..");
}
