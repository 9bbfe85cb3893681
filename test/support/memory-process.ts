/** A process of a guest in memory: what its command says it does, its output, its end. */
const SIGKILL = 9;

interface End {
  readonly exitCode: number;
  readonly signal: number;
}

export class MemoryProcess {
  readonly id: string;
  readonly pid: number;
  readonly args: readonly string[];
  readonly terminal: boolean;
  readonly stdin: boolean;
  readonly startedAtNs = BigInt(Date.now()) * 1_000_000n;
  readonly output: Record<1 | 2, Buffer> = { 1: Buffer.alloc(0), 2: Buffer.alloc(0) };
  end: End | undefined;
  #exitedAtNs = 0n;
  #changed = Promise.withResolvers<void>();

  constructor(id: string, pid: number, args: readonly string[], options: { terminal: boolean; stdin: boolean }) {
    this.id = id;
    this.pid = pid;
    this.args = args;
    this.terminal = options.terminal;
    this.stdin = options.stdin;
  }

  write(stream: 1 | 2, text: string): void {
    this.output[stream] = Buffer.concat([this.output[stream], Buffer.from(text)]);
    this.#change();
  }

  exit(exitCode: number, signal = 0): void {
    if (this.end !== undefined) return;
    this.end = { exitCode, signal };
    this.#exitedAtNs = BigInt(Date.now()) * 1_000_000n;
    this.#change();
  }

  signal(number: number): void {
    if (this.args[0] === "stubborn" && number !== SIGKILL) return;
    this.exit(128 + number, number);
  }

  /** Waits for `condition`; false when it did not come within the time. */
  async until(condition: () => boolean, waitMs: number): Promise<boolean> {
    const endMs = performance.now() + waitMs;
    while (!condition()) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) return false;
      let timer: NodeJS.Timeout | undefined;
      const timeout = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, leftMs);
        timer.unref();
      });
      await Promise.race([this.#changed.promise, timeout]);
      clearTimeout(timer);
    }
    return true;
  }

  endMessage(): {
    ended: boolean;
    exitCode: number;
    signal: number;
    startedAtNs: bigint;
    exitedAtNs: bigint;
  } {
    const { exitCode, signal } = this.end ?? { exitCode: 0, signal: 0 };
    return {
      ended: this.end !== undefined,
      exitCode,
      signal,
      startedAtNs: this.startedAtNs,
      exitedAtNs: this.#exitedAtNs,
    };
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
