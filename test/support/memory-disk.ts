/**
 * The in-memory twin of the store's `Disk`, with a page cache that a power loss empties.
 *
 * Fault model. Two views are kept: what a running process sees, and what is on the platter. An operation changes the first
 * at once and leaves a pending effect for the second.
 *
 * - Data is written in sectors of 512 bytes. A sector is never torn in itself; of several sectors any subset may arrive.
 *   A sector written several times since the last sync arrives in any of its versions, or not at all.
 * - The size of a file grows by itself, in steps of a sector, whether or not the data has arrived: bytes without data
 *   are zeros. So an unsynced file may be empty, short, full of zeros, or any mixture.
 * - A name created, renamed or removed is an effect of its own, atomic, and independent of the data: a name may arrive
 *   without its data, and a later change of a directory without an earlier one. That a later effect arrives and an earlier
 *   one does not is what reordering comes to; each subset is possible.
 * - `DiskFile.sync` completes the data and size of its file, not its name. `syncDirectory` completes the names in one
 *   directory; a rename between directories counts for the one it leads to.
 * - A sync that fails with EIO loses what it was to write: a later sync that succeeds does not bring it to the platter, as
 *   Linux marks the pages clean. The running process goes on seeing it.
 * - A write that fails may have written any first part of its data.
 * - At a power loss each pending effect is kept or dropped by a chooser; the process does nothing more.
 *
 * Not modelled: sectors that go bad on the platter, a disk that lies about a completed sync, hard links.
 */
import { type Disk, type DiskFile, systemError } from "../../src/store/disk.ts";

export const SECTOR_BYTES = 512;

/** Picks one of `count` possibilities, 0 to `count` - 1. 0 is always "nothing pending arrived". */
export type Choose = (count: number) => number;

/** What the process of a test gets from the operation at which the power went, and from every later one. */
export class PowerLoss extends Error {
  override readonly name = "PowerLoss";
}

export interface InjectedFault {
  /** Index of the operation that fails, from 0. */
  readonly at: number;
  readonly errno: string;
  /** Whether every later operation that changes something fails as well. */
  readonly persistent?: boolean;
}

export class MemoryDisk implements Disk {
  #root = new DirectoryNode();
  #pending: NameEffect[] = [];
  /** Names of the operations so far, for messages. */
  readonly operations: string[] = [];
  /** The power goes after this many operations. */
  powerLossAfter = Number.POSITIVE_INFINITY;
  fault: InjectedFault | undefined;

  async read(path: string, maxBytes: number): Promise<Uint8Array> {
    this.#operate("read", path, false);
    const node = this.#find(path);
    if (!(node instanceof FileNode)) throw systemError("EISDIR", "illegal operation on a directory, read", path);
    if (node.bytes.length > maxBytes) throw systemError("EFBIG", `larger than ${maxBytes} bytes`, path);
    return Uint8Array.from(node.bytes);
  }

  async create(path: string, _mode: number): Promise<DiskFile> {
    this.#operate("create", path);
    const node = new FileNode();
    this.#link(path, node);
    return this.#handle(path, node);
  }

  async append(path: string): Promise<DiskFile> {
    this.#operate("open", path, false);
    const node = this.#find(path);
    if (!(node instanceof FileNode)) throw systemError("EISDIR", "illegal operation on a directory, open", path);
    return this.#handle(path, node);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#operate("rename", from);
    const node = this.#find(from);
    const source = this.#parent(from);
    const target = this.#parent(to);
    this.#apply({
      synced: target.directory,
      change: (entriesOf) => {
        entriesOf(source.directory).delete(source.name);
        entriesOf(target.directory).set(target.name, node);
      },
    });
  }

  async unlink(path: string): Promise<void> {
    this.#operate("unlink", path);
    this.#find(path);
    const { directory, name } = this.#parent(path);
    this.#apply({ synced: directory, change: (entriesOf) => void entriesOf(directory).delete(name) });
  }

  async list(path: string): Promise<string[]> {
    this.#operate("list", path, false);
    return [...this.#directory(path).entries.keys()].sort();
  }

  async makeDirectory(path: string, _mode: number): Promise<void> {
    this.#operate("mkdir", path);
    this.#link(path, new DirectoryNode());
  }

  async syncDirectory(path: string): Promise<void> {
    const directory = this.#directory(path);
    const mine = this.#pending.filter((effect) => effect.synced === directory);
    this.#operate("syncDirectory", path, true, () => {
      for (const effect of mine) effect.lost = true;
    });
    for (const effect of mine) {
      if (effect.lost !== true) effect.change((node) => node.durable);
    }
    this.#pending = this.#pending.filter((effect) => effect.synced !== directory || effect.lost === true);
  }

  /** What the next process finds: every pending effect kept or dropped as `choose` says. Leaves this disk as it is. */
  afterPowerLoss(choose: Choose): MemoryDisk {
    const kept = this.#pending.filter(() => choose(2) === 1);
    const survivors = new Map<DirectoryNode, Map<string, Node>>();
    const entriesOf = (node: DirectoryNode): Map<string, Node> => {
      const entries = survivors.get(node) ?? new Map(node.durable);
      survivors.set(node, entries);
      return entries;
    };
    for (const effect of kept) effect.change(entriesOf);
    const copy = (node: Node): Node => {
      if (node instanceof FileNode) return node.afterPowerLoss(choose);
      const entries = [...entriesOf(node)].map(([name, child]): [string, Node] => [name, copy(child)]);
      return new DirectoryNode(entries);
    };
    const root = copy(this.#root);
    const next = new MemoryDisk();
    if (root instanceof DirectoryNode) next.#root = root;
    return next;
  }

  #handle(path: string, node: FileNode): DiskFile {
    return {
      write: async (data) => {
        this.#operate("write", path, true, () => node.write(data.subarray(0, Math.floor(data.length / 2))));
        node.write(data);
      },
      sync: async () => {
        this.#operate("sync", path, true, () => node.losePending());
        node.sync();
      },
      close: async () => this.#operate("close", path, false),
    };
  }

  /** Counts an operation; throws in place of it when its time has come. `halfway` is what a failure leaves behind. */
  #operate(operation: string, path: string, changes: boolean = true, halfway?: () => void): void {
    const index = this.operations.length;
    if (index >= this.powerLossAfter) throw new PowerLoss(`no power at operation ${index}, ${operation} ${path}`);
    this.operations.push(`${operation} ${path}`);
    const { fault } = this;
    if (fault === undefined) return;
    if (index === fault.at || (fault.persistent === true && changes && index > fault.at)) {
      halfway?.();
      throw systemError(fault.errno, `injected at operation ${index}, ${operation}`, path);
    }
  }

  #link(path: string, node: Node): void {
    const { directory, name } = this.#parent(path);
    if (directory.entries.has(name)) throw systemError("EEXIST", "file already exists", path);
    this.#apply({ synced: directory, change: (entriesOf) => void entriesOf(directory).set(name, node) });
  }

  #apply(effect: NameEffect): void {
    effect.change((node) => node.entries);
    this.#pending.push(effect);
  }

  #find(path: string): Node {
    let node: Node = this.#root;
    for (const name of path.split("/").filter((part) => part !== "")) {
      const child: Node | undefined = node instanceof DirectoryNode ? node.entries.get(name) : undefined;
      if (child === undefined) throw systemError("ENOENT", "no such file or directory", path);
      node = child;
    }
    return node;
  }

  #directory(path: string): DirectoryNode {
    const node = this.#find(path);
    if (!(node instanceof DirectoryNode)) throw systemError("ENOTDIR", "not a directory", path);
    return node;
  }

  #parent(path: string): { readonly directory: DirectoryNode; readonly name: string } {
    const cut = path.lastIndexOf("/");
    return { directory: this.#directory(path.slice(0, cut)), name: path.slice(cut + 1) };
  }
}

type Node = FileNode | DirectoryNode;
type EntriesOf = (node: DirectoryNode) => Map<string, Node>;

interface NameEffect {
  /** The directory whose sync completes it. */
  readonly synced: DirectoryNode;
  /** Makes the change in one of the views. */
  readonly change: (entriesOf: EntriesOf) => void;
  /** Set by a failed sync: no later one completes it. */
  lost?: boolean;
}

class DirectoryNode {
  readonly entries: Map<string, Node>;
  readonly durable: Map<string, Node>;

  constructor(entries: Iterable<readonly [string, Node]> = []) {
    this.durable = new Map(entries);
    this.entries = new Map(this.durable);
  }
}

interface SectorEffect {
  readonly sector: number;
  /** The whole sector as the process sees it after the write. */
  readonly content: Buffer;
  /** Size of the file after this part of the write. */
  readonly sizeBytes: number;
  lost: boolean;
}

class FileNode {
  bytes: Buffer;
  #durable: Buffer;
  #pending: SectorEffect[] = [];

  constructor(content: Buffer = Buffer.alloc(0)) {
    this.bytes = content;
    this.#durable = content;
  }

  write(data: Uint8Array): void {
    const start = this.bytes.length;
    this.bytes = Buffer.concat([this.bytes, data]);
    for (let at = start; at < this.bytes.length; at = nextSector(at)) {
      const sector = Math.floor(at / SECTOR_BYTES);
      const content = Buffer.alloc(SECTOR_BYTES);
      this.bytes.copy(content, 0, sector * SECTOR_BYTES, nextSector(at));
      this.#pending.push({ sector, content, sizeBytes: Math.min(nextSector(at), this.bytes.length), lost: false });
    }
  }

  sync(): void {
    const complete = this.#pending.filter((effect) => !effect.lost);
    const sizeBytes = complete.at(-1)?.sizeBytes ?? this.#durable.length;
    this.#durable = assemble(this.#durable, complete, sizeBytes);
    this.#pending = this.#pending.filter((effect) => effect.lost);
  }

  losePending(): void {
    for (const effect of this.#pending) effect.lost = true;
  }

  afterPowerLoss(choose: Choose): FileNode {
    const sizes = [this.#durable.length, ...this.#pending.map((effect) => effect.sizeBytes)];
    const sizeBytes = Math.max(this.#durable.length, sizes[choose(sizes.length)] ?? 0);
    const versions = Map.groupBy(this.#pending, (effect) => effect.sector);
    const arrived = [...versions.values()].flatMap((list) => list[choose(list.length + 1) - 1] ?? []);
    return new FileNode(assemble(this.#durable, arrived, sizeBytes));
  }
}

function assemble(old: Buffer, effects: readonly SectorEffect[], sizeBytes: number): Buffer {
  const content = Buffer.alloc(Math.ceil(Math.max(sizeBytes, old.length) / SECTOR_BYTES) * SECTOR_BYTES);
  old.copy(content);
  for (const { sector, content: data } of effects) data.copy(content, sector * SECTOR_BYTES);
  return content.subarray(0, sizeBytes);
}

function nextSector(at: number): number {
  return (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES;
}
