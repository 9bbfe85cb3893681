/**
 * The file tree that one layer describes, without data: what each entry is checked against, and where whiteouts and the
 * final attributes of directories are kept until the whole layer has been read.
 *
 * Rules, for a layer that may be hostile:
 * - A name is relative, has no `..`, and no empty component (`./x` and a trailing slash on a directory are fine).
 * - No name passes through anything but directories of this layer. A parent that is a symlink is refused even where it would
 *   lead to a place inside: programs that write layers walk a tree and never make such an entry, and what it means depends on
 *   who reads it. (A later layer may well write `bin/x` where an earlier one has `bin -> usr/bin`: as in docker, that makes
 *   `bin` a directory.)
 * - A hard link's target is a name of the same layer, before or after it, and not a directory.
 * - Of two entries with one name the later counts; a directory keeps what is in it, and must not become something else
 *   while something is in it.
 * - Whiteouts speak of lower layers only, wherever in the archive they stand. Below something that is not a directory they
 *   say nothing new: what stands there hides all of it.
 */
import { imageLimits } from "../base/index.ts";
import type { TarEntry, TarTime } from "./tar-entry.ts";
import { shownName } from "./tar-entry.ts";

/** A rule was broken; the layer builder makes it a BelljarError `IMAGE_HOSTILE` with entry and layer. */
export class LayerRuleError extends Error {
  override readonly name = "LayerRuleError";
}

export interface DirectoryAttributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: TarTime;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

export interface LayerNode {
  readonly kind: "directory" | "nonDirectory" | "symlink";
  readonly children: Map<string, LayerNode>;
  /** Directories only; absent while the layer has no entry for it. */
  attributes?: DirectoryAttributes;
  /** Hides all that lower layers have in this directory. */
  opaque: boolean;
  /** Names in this directory that are hidden in lower layers. */
  readonly whiteouts: Set<string>;
}

/** A directory without an entry of its own, as docker makes it; the epoch, so that one layer always gives the same bytes. */
export const IMPLICIT_DIRECTORY: DirectoryAttributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 0, nanoseconds: 0 },
  xattrs: new Map(),
};

const WHITEOUT_PREFIX = ".wh.";
const OPAQUE_MARK = ".wh..wh..opq";
/** What AUFS kept for itself (`.wh..wh.plnk` and others): never part of an image. */
const AUFS_PREFIX = ".wh..wh.";

export type Placement =
  /** Write the entry under this path; `newDirectories` must exist before, outermost first. */
  | { readonly write: string; readonly newDirectories: readonly string[] }
  /** Nothing to write now: a directory (its attributes come last), a whiteout, or a link to a later entry. */
  | { readonly write: undefined; readonly newDirectories: readonly string[] };

export class LayerTree {
  readonly root: LayerNode = newNode("directory");
  /** Hard links whose target has not been seen yet, in the order of the archive. */
  readonly #pendingLinks = new Map<string, TarEntry>();
  #nodes = 0;
  #nameBytes = 0;

  /** @throws LayerRuleError */
  place(entry: TarEntry): Placement {
    const parts = splitName(entry.path, "name");
    const name = parts.pop();
    if (name === undefined) {
      if (entry.kind !== "directory") throw new LayerRuleError("the root of the layer is not a directory");
      this.#describe(this.root, entry);
      return { write: undefined, newDirectories: [] };
    }
    if (name.startsWith(WHITEOUT_PREFIX)) return this.#placeWhiteout(parts, name);
    const { node: parent, created } = this.#walk(parts);
    const path = joinName(parts, name);
    const existing = parent.children.get(name);
    if (entry.kind === "directory") {
      const isNew = existing?.kind !== "directory";
      if (isNew) this.#pendingLinks.delete(path);
      const node = existing !== undefined && !isNew ? existing : this.#add(parent, name, newNode("directory"));
      this.#describe(node, entry);
      return { write: undefined, newDirectories: isNew ? [...created, path] : created };
    }
    if (existing?.kind === "directory" && existing.children.size > 0) {
      throw new LayerRuleError("it would replace a directory of the same name that is not empty");
    }
    const target = entry.kind === "hardLink" ? this.#linkTarget(entry, path) : undefined;
    this.#pendingLinks.delete(path);
    if (target?.later === true) {
      // The link itself is unknown until its target is; a name that waits is a name that is taken.
      this.#pendingLinks.set(path, { ...entry, path, linkTarget: target.path });
      this.#add(parent, name, newNode("nonDirectory"));
      return { write: undefined, newDirectories: created };
    }
    this.#add(parent, name, newNode(entry.kind === "symlink" ? "symlink" : "nonDirectory"));
    return { write: path, newDirectories: created };
  }

  /** The links that were waiting, each after its target. @throws LayerRuleError when a target never came. */
  pendingLinks(): TarEntry[] {
    const ordered: TarEntry[] = [];
    const waiting = new Map(this.#pendingLinks);
    while (waiting.size > 0) {
      const before = waiting.size;
      for (const [path, entry] of waiting) {
        if (waiting.has(entry.linkTarget)) continue;
        const node = this.#find(splitName(entry.linkTarget, "link target"));
        if (node === undefined) throw new LayerRuleError(`${describeLink(entry)}, which this layer does not have`);
        if (node.kind === "directory") throw new LayerRuleError(`${describeLink(entry)}, which is a directory`);
        ordered.push(entry);
        waiting.delete(path);
      }
      if (waiting.size === before) {
        const first = waiting.values().next().value;
        throw new LayerRuleError(`${first === undefined ? "a hard link" : describeLink(first)}, in a circle`);
      }
    }
    return ordered;
  }

  /** Every directory with its path (without `./`), parents before children. */
  *directories(): Generator<{ path: string; node: LayerNode }> {
    const stack: { path: string; node: LayerNode }[] = [{ path: "", node: this.root }];
    for (let item = stack.pop(); item !== undefined; item = stack.pop()) {
      yield item;
      for (const [name, child] of item.node.children) {
        if (child.kind === "directory")
          stack.push({ path: item.path === "" ? name : `${item.path}/${name}`, node: child });
      }
    }
  }

  #placeWhiteout(parts: string[], name: string): Placement {
    const nothing = { write: undefined, newDirectories: [] };
    const hidden = name.slice(WHITEOUT_PREFIX.length);
    if (name !== OPAQUE_MARK && name.startsWith(AUFS_PREFIX)) return nothing;
    if (hidden === "" || hidden === "." || hidden === "..") {
      throw new LayerRuleError("a whiteout names nothing that can be hidden");
    }
    if (this.#isBelowLeaf(parts)) return nothing;
    const { node, created } = this.#walk(parts);
    if (name === OPAQUE_MARK) node.opaque = true;
    else if (!node.whiteouts.has(hidden)) {
      this.#count(hidden);
      node.whiteouts.add(hidden);
    }
    return { write: undefined, newDirectories: created };
  }

  #isBelowLeaf(parts: readonly string[]): boolean {
    let node: LayerNode | undefined = this.root;
    for (const part of parts) {
      node = node.children.get(part);
      if (node === undefined) return false;
      if (node.kind !== "directory") return true;
    }
    return false;
  }

  /** Finds the directory, and adds what is missing of it. */
  #walk(parts: readonly string[]): { node: LayerNode; created: string[] } {
    let node = this.root;
    const created: string[] = [];
    let path = "";
    for (const part of parts) {
      path = path === "" ? part : `${path}/${part}`;
      const child = node.children.get(part);
      if (child?.kind === "symlink")
        throw new LayerRuleError(`it lies below ${shownName(path)}, which is a symlink in this layer`);
      if (child?.kind === "nonDirectory")
        throw new LayerRuleError(`it lies below ${shownName(path)}, which is not a directory`);
      if (part.startsWith(WHITEOUT_PREFIX)) throw new LayerRuleError("it lies below a whiteout");
      if (child === undefined) created.push(path);
      node = child ?? this.#add(node, part, newNode("directory"));
    }
    return { node, created };
  }

  #linkTarget(entry: TarEntry, path: string): { path: string; later: boolean } {
    const parts = splitName(entry.linkTarget, "link target");
    const target = parts.join("/");
    if (target === path) throw new LayerRuleError("it is a hard link to itself");
    const node = this.#find(parts);
    if (node?.kind === "directory") throw new LayerRuleError(`${describeLink(entry)}, which is a directory`);
    return { path: target, later: node === undefined || this.#pendingLinks.has(target) };
  }

  /** @throws LayerRuleError when the way leads through something that is not a directory. */
  #find(parts: readonly string[]): LayerNode | undefined {
    let node: LayerNode | undefined = this.root;
    for (const part of parts) {
      if (node.kind !== "directory")
        throw new LayerRuleError("it is a hard link whose target lies below something that is not a directory");
      node = node.children.get(part);
      if (node === undefined) return undefined;
    }
    return node;
  }

  #describe(node: LayerNode, entry: TarEntry): void {
    const { mode, uid, gid, mtime, xattrs } = entry;
    for (const [name, value] of xattrs) this.#nameBytes += name.length + value.length;
    node.attributes = { mode, uid, gid, mtime, xattrs };
  }

  #add(parent: LayerNode, name: string, node: LayerNode): LayerNode {
    if (!parent.children.has(name)) this.#count(name);
    parent.children.set(name, node);
    return node;
  }

  #count(name: string): void {
    this.#nodes += 1;
    this.#nameBytes += name.length;
    if (this.#nodes > imageLimits.entriesMax)
      throw new LayerRuleError(`the layer has more than ${imageLimits.entriesMax} files`);
    if (this.#nameBytes > imageLimits.namesMaxBytes) {
      throw new LayerRuleError(`the names of the layer take more than ${imageLimits.namesMaxBytes} bytes`);
    }
  }
}

/** Shared by all files: they have nothing of their own, and a layer may have a million. Never changed. */
const LEAVES = {
  nonDirectory: { kind: "nonDirectory", children: new Map(), opaque: false, whiteouts: new Set() },
  symlink: { kind: "symlink", children: new Map(), opaque: false, whiteouts: new Set() },
} as const satisfies Record<string, LayerNode>;

function newNode(kind: LayerNode["kind"]): LayerNode {
  return kind === "directory" ? { kind, children: new Map(), opaque: false, whiteouts: new Set() } : LEAVES[kind];
}

function describeLink(entry: TarEntry): string {
  return `${shownName(entry.path)} is a hard link to ${shownName(entry.linkTarget)}`;
}

function joinName(parts: readonly string[], name: string): string {
  return parts.length === 0 ? name : `${parts.join("/")}/${name}`;
}

/** Components of a relative name. The root is the empty list. @throws LayerRuleError */
export function splitName(path: string, what: "name" | "link target"): string[] {
  if (path === "") throw new LayerRuleError(`its ${what} is empty`);
  if (path.startsWith("/")) throw new LayerRuleError(`its ${what} is absolute`);
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  for (const part of parts) {
    if (part === "..") throw new LayerRuleError(`its ${what} has ".." in it`);
    if (part.length > 255) throw new LayerRuleError(`its ${what} has a component of more than 255 bytes`);
  }
  return parts;
}
