/** One thread that moves guests' memory: started when it is first asked, and no reason for the program to go on. */
import { Worker } from "node:worker_threads";
import { BelljarError } from "../../base/index.ts";
import type { MemoryAnswer, MemoryRequest } from "./messages.ts";
import type { PageRuns } from "./page-runs.ts";

type Wish = MemoryRequest extends infer R ? (R extends MemoryRequest ? Omit<R, "id"> : never) : never;

export class MemoryThread {
  readonly #waiting = new Map<number, PromiseWithResolvers<readonly PageRuns[]>>();
  #worker: Worker | undefined;
  #lastId = 0;

  /** Answers the pages that it has looked for, if it has. */
  ask(wish: Wish): Promise<readonly PageRuns[]> {
    this.#lastId += 1;
    const id = this.#lastId;
    const waiting = Promise.withResolvers<readonly PageRuns[]>();
    this.#waiting.set(id, waiting);
    const worker = this.#started();
    worker.ref();
    worker.postMessage({ ...wish, id });
    return waiting.promise;
  }

  /** When it has done what it was asked. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#waiting.values()].map(({ promise }) => promise));
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
    this.#waiting.delete(answer.id);
    // Nobody waits: the program may end.
    if (this.#waiting.size === 0) worker.unref();
    if (answer.kind === "done") waiting.resolve(answer.runs);
    else if (answer.kind === "refused") waiting.reject(new BelljarError(answer.reason, answer.message));
    else waiting.reject(asError(answer));
  }

  #onEnd(worker: Worker, cause: unknown): void {
    if (this.#worker === worker) this.#worker = undefined;
    const error = new BelljarError("INTERNAL", "the thread that moves memory has ended", { cause });
    for (const { reject } of this.#waiting.values()) reject(error);
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
