/**
 * The output of the first processes of one sandbox's containers, as this process handles it: for each container the log of its
 * present start, the pump that fills it while the guest can be asked, and those who read it.
 *
 * Each start has an output, and a directory, of its own: offsets are those of the guest's rings. The log of an earlier start goes when
 * the next one begins.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno, messageChain, sandboxLimits, streamLimits, systemClock } from "../base/index.ts";
import { stateOf } from "./container-state.ts";
import { OutputCursor } from "./output-cursor.ts";
import { OutputLog } from "./output-log.ts";
import type { StreamNumber } from "./output-log-format.ts";
import { OutputPump } from "./output-pump.ts";
import type { HostSandbox } from "./state.ts";

interface Output {
  readonly starts: number;
  readonly log: OutputLog;
  pump: OutputPump | undefined;
  /** Attached ones that have not come to the end. */
  readonly readers: Set<OutputCursor>;
}

export interface LogSnapshot {
  readonly containerId: string;
  readonly starts: number;
  readonly files: ReturnType<OutputLog["snapshot"]>;
}

const streams: readonly StreamNumber[] = [1, 2];

export class Outputs {
  readonly #sandbox: HostSandbox;
  readonly #outputs = new Map<string, Promise<Output>>();
  #released = false;

  constructor(sandbox: HostSandbox) {
    this.#sandbox = sandbox;
    sandbox.listen((before, after) => {
      for (const { id, state } of after.containers) {
        if (state !== "stopped" || before.containers.find((each) => each.id === id)?.state === "stopped") continue;
        // What is left is little, and is kept: nobody has to be waited for any more.
        void this.#outputs.get(id)?.then(letGoReaders, () => {});
      }
    });
  }

  /** The log of the container's present start, whether it still runs or not. */
  async log(id: string): Promise<OutputLog> {
    this.#hurry();
    return (await this.#output(id)).log;
  }

  /** A reader that holds the process up while it reads on, and for a while afterwards. */
  async attach(id: string, stream: StreamNumber, offset: bigint): Promise<OutputCursor> {
    this.#hurry();
    const { log, readers } = await this.#output(id);
    const isOver = stateOf(this.#sandbox, id).state === "stopped";
    const leaseMs = streamLimits.readerLeaseMs;
    const cursor = new OutputCursor(log, { stream, offset, attached: !isOver, leaseMs });
    readers.add(cursor);
    return cursor;
  }

  /** The reader has come to the end, or does not want to. */
  async detach(id: string, cursor: OutputCursor): Promise<void> {
    cursor.detach();
    (await this.#outputs.get(id))?.readers.delete(cursor);
  }

  /** Moves what the process writes into its log, from where the log ends. Idempotent. */
  async start(id: string): Promise<void> {
    const { starts, inGuest, config } = stateOf(this.#sandbox, id);
    if (starts === 0 || !inGuest) return;
    const output = await this.#output(id);
    if (output.pump !== undefined) return;
    output.pump = new OutputPump({
      agent: this.#sandbox.machine.patient,
      address: { containerId: id, processId: "" },
      log: output.log,
      streams: config.tty === true ? [1] : streams,
      clock: systemClock,
      onError: (error) => {
        const cause = messageChain(error).join(": ");
        this.#sandbox.log.debug("output is not moved just now", { container: id, cause });
      },
    });
    output.pump.start();
  }

  /** Somebody wants to see what there is: of a copy whose agent was not asked yet, nothing has come. That it fails is told by the pump. */
  #hurry(): void {
    if (this.#sandbox.hasMachine && this.#sandbox.state.state === "running") this.#sandbox.agent().catch(() => {});
  }

  /** The container's rings are about to go: takes what they still have, and says in the log that this was all. */
  async drain(id: string, options: { readonly canBeAsked: boolean }): Promise<void> {
    const state = stateOf(this.#sandbox, id);
    if (state.starts === 0) return;
    const output = await this.#output(id);
    letGoReaders(output);
    if (output.pump !== undefined) {
      if (options.canBeAsked) await within(sandboxLimits.drainTimeoutMs, output.pump.ended);
      await output.pump.stop();
      output.pump = undefined;
    }
    for (const stream of streams) {
      if (!output.log.closed) await output.log.finish(stream, this.#sandbox.clock.nowMs());
    }
  }

  /** The logs as they are at this instant, of those containers whose output is looked after. */
  async snapshot(): Promise<readonly LogSnapshot[]> {
    const found: LogSnapshot[] = [];
    for (const [containerId, waiting] of this.#outputs) {
      const { starts, log } = await waiting;
      found.push({ containerId, starts, files: log.snapshot() });
    }
    return found;
  }

  /** The guest is about to stand still: nothing can be asked of it until `resume`. */
  async suspend(): Promise<void> {
    for (const waiting of this.#outputs.values()) {
      const output = await waiting;
      await output.pump?.stop();
      output.pump = undefined;
    }
  }

  async resume(): Promise<void> {
    for (const { id } of this.#sandbox.state.containers) await this.start(id);
  }

  /** Waits a moment for attached readers to read what was written last. */
  async lastReaders(): Promise<void> {
    const untilMs = this.#sandbox.clock.monotonicMs() + sandboxLimits.lastReadersMs;
    for (const waiting of this.#outputs.values()) {
      const { readers, log } = await waiting;
      while (readers.size > 0 && this.#sandbox.clock.monotonicMs() < untilMs) await log.waitForChange(50);
    }
  }

  /** Removes the container's logs. */
  async forget(id: string): Promise<void> {
    await this.#close(id);
    await rm(join(this.#sandbox.logsDir, id), { recursive: true, force: true });
  }

  /** Stops writing; what is written stays, and what is not, the guest keeps. */
  async release(): Promise<void> {
    this.#released = true;
    await Promise.all([...this.#outputs.keys()].map((id) => this.#close(id)));
  }

  async #output(id: string): Promise<Output> {
    const { starts } = stateOf(this.#sandbox, id);
    if (this.#released) throw new BelljarError("CANCELLED", "the output of this sandbox is not looked after any more");
    const known = this.#outputs.get(id) ?? Promise.resolve(undefined);
    const output = known
      .catch(() => undefined)
      .then(async (current): Promise<Output> => {
        if (current !== undefined && current.starts === starts && !current.log.closed) return current;
        if (current !== undefined) await closeOutput(current);
        const dir = join(this.#sandbox.logsDir, id);
        for (const name of await listDirectory(dir)) {
          if (name !== String(starts)) await rm(join(dir, name), { recursive: true, force: true });
        }
        return {
          starts,
          log: await OutputLog.open({ dir: join(dir, String(starts)) }),
          pump: undefined,
          readers: new Set(),
        };
      });
    this.#outputs.set(id, output);
    return await output;
  }

  async #close(id: string): Promise<void> {
    const output = await this.#outputs.get(id)?.catch(() => undefined);
    this.#outputs.delete(id);
    if (output !== undefined) await closeOutput(output);
  }
}

function letGoReaders(output: Output): void {
  for (const reader of output.readers) reader.detach();
}

async function closeOutput(output: Output): Promise<void> {
  await output.pump?.stop();
  await output.log.close();
}

async function within(timeoutMs: number, work: Promise<void>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([work, systemClock.sleep(timeoutMs, timer.signal).catch(() => {})]);
  timer.abort();
}

async function listDirectory(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}
