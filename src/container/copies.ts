/**
 * Keeps what is copied into the guest in step with the host: one copy at the container's creation, and one after each change.
 * Changes are seen by watching the directories, and by looking every so often. A source that vanishes, or grows too large, leaves
 * what was copied last.
 */
import { type FSWatcher, watch } from "node:fs";
import { BelljarError, messageChain, mountLimits } from "../base/index.ts";
import { type CopiedTree, readTree } from "./copied-tree.ts";
import type { MountState } from "./mount-config.ts";
import { mountKey } from "./mount-place.ts";
import type { HostSandbox } from "./state.ts";

export class Copies {
  readonly #sandbox: HostSandbox;
  readonly #mirrors = new Map<string, Mirror[]>();

  constructor(sandbox: HostSandbox) {
    this.#sandbox = sandbox;
  }

  /** Copies everything that the container has as copies. @throws BelljarError `MOUNT_TOO_LARGE`, `MOUNT_SOURCE_MISSING`, the agent's */
  async fill(containerId: string, mounts: readonly MountState[], signal?: AbortSignal): Promise<void> {
    for (const mirror of this.#mirrorsOf(containerId, mounts)) await mirror.copy(signal);
  }

  /** Copies again whatever changes from now on, or has changed since the last owner looked. */
  watch(containerId: string, mounts: readonly MountState[]): void {
    if (this.#mirrors.has(containerId)) return;
    const mirrors = this.#mirrorsOf(containerId, mounts);
    this.#mirrors.set(containerId, mirrors);
    for (const mirror of mirrors) mirror.start();
  }

  async stop(containerId: string): Promise<void> {
    const mirrors = this.#mirrors.get(containerId) ?? [];
    this.#mirrors.delete(containerId);
    await Promise.all(mirrors.map((mirror) => mirror.stop()));
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.#mirrors.keys()].map((id) => this.stop(id)));
  }

  #mirrorsOf(containerId: string, mounts: readonly MountState[]): Mirror[] {
    return mounts.flatMap((mount, index) =>
      mount.how === "copy" ? [new Mirror(this.#sandbox, containerId, mountKey(index), mount.source)] : [],
    );
  }
}

/** One source and its copy. */
class Mirror {
  readonly #sandbox: HostSandbox;
  readonly #containerId: string;
  readonly #key: string;
  readonly #source: string;
  readonly #stopped = new AbortController();
  readonly #watchers = new Map<string, FSWatcher>();
  #copied = "";
  #problem = "";
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;

  constructor(sandbox: HostSandbox, containerId: string, key: string, source: string) {
    this.#sandbox = sandbox;
    this.#containerId = containerId;
    this.#key = key;
    this.#source = source;
  }

  async copy(signal: AbortSignal | undefined): Promise<void> {
    try {
      await this.#send(await readTree(this.#source), signal);
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      if (error.reason === "MOUNT_TOO_LARGE" || error.reason === "CANCELLED") throw error;
      const message = `${this.#source} cannot be copied into container ${this.#containerId}`;
      throw new BelljarError(error.reason, message, { facts: { ...error.facts, source: this.#source }, cause: error });
    }
  }

  start(): void {
    this.#later(0);
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    clearTimeout(this.#timer);
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
    await this.#running;
  }

  #later(delayMs: number): void {
    if (this.#stopped.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // What changes during a copy is seen by the next.
      this.#running ??= this.#look().finally(() => {
        this.#running = undefined;
        this.#later(mountLimits.copyPollMs);
      });
    }, delayMs);
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    // A guest that stands still takes nothing; what has changed meanwhile is seen afterwards.
    if (this.#sandbox.state.state === "paused" || !this.#sandbox.hasMachine) return;
    try {
      const tree = await readTree(this.#source);
      this.#follow(tree.directories);
      if (tree.fingerprint !== this.#copied) await this.#send(tree, this.#stopped.signal);
      this.#problem = "";
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      const cause = messageChain(error).join(": ");
      // Once, not with every look.
      if (cause !== this.#problem) {
        this.#sandbox.log.warn("a copied mount is behind the host", { source: this.#source, cause });
      }
      this.#problem = cause;
    }
  }

  async #send(tree: CopiedTree, signal: AbortSignal | undefined): Promise<void> {
    const entries = tree.entries.map(({ path, kind, mode, uid, gid, modifiedMs, data, target }) => ({
      path,
      mode,
      uid,
      gid,
      modifiedMs,
      is:
        kind === "file"
          ? { case: "data" as const, value: data ?? new Uint8Array(0) }
          : kind === "link"
            ? { case: "linkTarget" as const, value: target ?? "" }
            : { case: "directory" as const, value: true },
    }));
    await this.#sandbox.call("copyIn", { containerId: this.#containerId, key: this.#key, entries }, { signal });
    this.#copied = tree.fingerprint;
  }

  /** Watches these directories, or the file itself where there are none, and no others. */
  #follow(directories: readonly string[]): void {
    const wanted = new Set(directories.length === 0 ? [this.#source] : directories);
    for (const [path, watcher] of this.#watchers) {
      if (wanted.has(path)) continue;
      watcher.close();
      this.#watchers.delete(path);
    }
    for (const path of wanted) {
      if (this.#watchers.has(path)) continue;
      try {
        const watcher = watch(path, { persistent: false }, () => this.#later(mountLimits.copySettleMs));
        // The look that comes every so often notices what happened to it.
        watcher.on("error", () => this.#drop(path));
        this.#watchers.set(path, watcher);
      } catch {
        // So it does for what cannot be watched.
      }
    }
  }

  #drop(path: string): void {
    this.#watchers.get(path)?.close();
    this.#watchers.delete(path);
  }
}
