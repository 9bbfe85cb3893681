/** One thread that moves guests' memory: started when it is first asked, and no reason for the program to go on. */
import { Worker } from "node:worker_threads";
import { BelljarError } from "../../base/index.ts";
import type { MemoryAnswer, MemoryRequest } from "./messages.ts";

type Wish = MemoryRequest extends infer R ? (R extends MemoryRequest ? Omit<R, "id"> : never) : never;
type Copied = Extract<MemoryAnswer, { kind: "copied" }>;

export interface Asked {
  /** Of what answers that before it is done. */
  readonly copied: Promise<Copied>;
  readonly done: Promise<void>;
}

interface Waiting {
  readonly copied: PromiseWithResolvers<Copied>;
  readonly done: PromiseWithResolvers<void>;
}

export class MemoryThread {
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #lastId = 0;

  ask(wish: Wish): Asked {
    this.#lastId += 1;
    const id = this.#lastId;
    const waiting: Waiting = { copied: Promise.withResolvers(), done: Promise.withResolvers() };
    waiting.copied.promise.catch(() => {});
    waiting.done.promise.catch(() => {});
    this.#waiting.set(id, waiting);
    const worker = this.#started();
    worker.ref();
    worker.postMessage({ ...wish, id });
    return { copied: waiting.copied.promise, done: waiting.done.promise };
  }

  /** When it has done what it was asked. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#waiting.values()].map(({ done }) => done.promise));
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #started(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(new URL("./memory-worker.ts", import.meta.url), { name: "belljar-memory" });
    worker.on("message", (answer: MemoryAnswer) => this.#onAnswer(worker, answer));
    worker.on("error", (error) => this.#onEnd(worker, error));
    worker.on("exit", () => this.#onEnd(worker, undefined));
    this.#worker = worker;
    return worker;
  }

  #onAnswer(worker: Worker, answer: MemoryAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    if (waiting === undefined) return;
    if (answer.kind === "copied") {
      waiting.copied.resolve(answer);
      return;
    }
    this.#waiting.delete(answer.id);
    // Nobody waits: the program may end.
    if (this.#waiting.size === 0) worker.unref();
    if (answer.kind === "done") waiting.done.resolve();
    else for (const each of [waiting.copied, waiting.done]) each.reject(asError(answer));
  }

  #onEnd(worker: Worker, cause: unknown): void {
    if (this.#worker === worker) this.#worker = undefined;
    const error = new BelljarError("INTERNAL", "the thread that moves memory has ended", { cause });
    for (const { copied, done } of this.#waiting.values()) for (const each of [copied, done]) each.reject(error);
    this.#waiting.clear();
  }
}

function asError({ code, message }: Extract<MemoryAnswer, { kind: "failed" }>): BelljarError {
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") {
    return new BelljarError("DISK_FULL", `no room is left for the guest's memory: ${message}`);
  }
  if (code === "EACCES" || code === "EPERM") {
    return new BelljarError("PERMISSION_DENIED", `the VM's memory cannot be read: ${message}`);
  }
  if (code === "ESRCH" || message.includes("/proc/")) {
    return new BelljarError("VMM_DIED", `the VM's memory is gone: ${message}`);
  }
  return new BelljarError("DISK_FAILED", `the guest's memory could not be moved: ${message}`);
}
