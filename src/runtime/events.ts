/** Watchers of one sandbox, and the journal of all of them. Each watcher has a bounded queue of its own: one that does not read loses its oldest events, nobody else's. */
import { cancelledError, sandboxLimits, throwIfAborted } from "../base/index.ts";
import type { SandboxEvent } from "./interface.ts";

interface Watcher {
  readonly events: SandboxEvent[];
  wake: () => void;
}

export class Events {
  readonly #watchers = new Set<Watcher>();
  readonly #journal: (event: SandboxEvent) => void;
  #ended = false;

  constructor(journal: (event: SandboxEvent) => void) {
    this.#journal = journal;
  }

  emit(event: SandboxEvent): void {
    this.#journal(event);
    for (const watcher of this.#watchers) {
      watcher.events.push(event);
      if (watcher.events.length > sandboxLimits.eventsWaitingMax) watcher.events.shift();
      watcher.wake();
    }
  }

  /** Nothing comes any more: watchers end once they have read what there is. */
  end(): void {
    this.#ended = true;
    for (const watcher of this.#watchers) watcher.wake();
  }

  /** Counts from the moment of the call, not of the first reading. */
  watch(signal: AbortSignal | undefined): AsyncIterable<SandboxEvent> {
    const watcher: Watcher = { events: [], wake: () => {} };
    this.#watchers.add(watcher);
    return this.#read(watcher, signal);
  }

  async *#read(watcher: Watcher, signal: AbortSignal | undefined): AsyncGenerator<SandboxEvent> {
    const onAbort = (): void => watcher.wake();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      for (;;) {
        throwIfAborted(signal);
        const event = watcher.events.shift();
        if (event !== undefined) {
          yield event;
          continue;
        }
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          watcher.wake = resolve;
        });
        if (signal?.aborted === true) throw cancelledError(signal);
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#watchers.delete(watcher);
    }
  }
}
