/**
 * The pipes between the agent and a process. Real ones, made as FIFOs: what Node makes for a child are sockets, and a program
 * that opens /dev/stdout, as many do, cannot open a socket.
 *
 * FIFOs are made in advance, several by one call of mkfifo, because starting a program takes time, and some time after one was taken, when
 * the process that it is for has started; the name of one goes away as soon as it is open. None of the calls here waits for anything:
 * they are made at once.
 */
import { closeSync, constants, openSync, unlinkSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import type { InputTarget } from "./input.ts";
import { type OutputSource, SOURCE_CHUNK_BYTES } from "./output.ts";
import type { RunTool } from "./tools.ts";

const BATCH = 12;
const REFILL_BELOW = 6;
const REFILL_AFTER_MS = 500;

export class PipeMaker {
  readonly #dir: string;
  readonly #runTool: RunTool;
  #free: string[] = [];
  #made = 0;
  #refill: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(dir: string, runTool: RunTool) {
    this.#dir = dir;
    this.#runTool = runTool;
  }

  /** The two ends of a new pipe. Reading and writing the child's end blocks, as programs expect. */
  async open(childReads: boolean): Promise<{ readonly childFd: number; readonly ownFd: number }> {
    const path = await this.#take();
    // A FIFO opened for both never blocks, and while it is open neither end does.
    const opener = openSync(path, constants.O_RDWR);
    try {
      const [childFlags, ownFlags] = childReads
        ? [constants.O_RDONLY, constants.O_WRONLY]
        : [constants.O_WRONLY, constants.O_RDONLY];
      const childFd = openSync(path, childFlags);
      try {
        return { childFd, ownFd: openSync(path, ownFlags | constants.O_NONBLOCK) };
      } catch (error) {
        closeSync(childFd);
        throw error;
      }
    } finally {
      closeSync(opener);
      unlinkSync(path);
    }
  }

  async #take(): Promise<string> {
    for (;;) {
      const path = this.#free.pop();
      if (path !== undefined) {
        if (this.#free.length < REFILL_BELOW) this.#refillLater();
        return path;
      }
      this.#refill ??= this.prepare();
      await this.#refill;
    }
  }

  #refillLater(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#refill ??= this.prepare();
      this.#refill.catch(() => {});
    }, REFILL_AFTER_MS).unref();
  }

  /** Makes some in advance. */
  async prepare(): Promise<void> {
    try {
      if (this.#made === 0) await mkdir(this.#dir, { recursive: true, mode: 0o700 });
      const names = Array.from({ length: BATCH }, () => join(this.#dir, String(this.#made++)));
      // Anyone: a process that runs as another user may open its /dev/stdout again. The directory keeps others out.
      await this.#runTool("busybox", ["mkfifo", "-m", "666", ...names]);
      this.#free.push(...names);
    } finally {
      this.#refill = undefined;
    }
  }
}

/** One for all: a piece is copied out of it before the next one is read. */
const readBuffer = Buffer.allocUnsafeSlow(SOURCE_CHUNK_BYTES);

/** Reads the agent's end of an output; `end` is called once, when nobody has the other end open any more. */
export function readPipe(fd: number, push: (bytes: Buffer) => void, end: () => void): OutputSource {
  const socket = new Socket({
    fd,
    readable: true,
    writable: false,
    onread: {
      buffer: readBuffer,
      callback: (length) => {
        push(readBuffer.subarray(0, length));
        return true;
      },
    },
  });
  socket.on("end", end);
  socket.on("error", end);
  socket.on("close", end);
  socket.resume();
  return { pause: () => void socket.pause(), resume: () => void socket.resume() };
}

/** Writes the agent's end of an input; `closed` is called when the process reads no more. */
export function writePipe(fd: number, closed: () => void): InputTarget & { destroy(): void } {
  const socket = new Socket({ fd, readable: false, writable: true });
  socket.on("error", closed);
  socket.on("close", closed);
  return {
    write: (bytes, written) => void socket.write(bytes, () => written()),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
}
