/** The user's terminal while a workload has it: raw mode, its size, and the way back whatever happens. */
import { BelljarError } from "../base/index.ts";

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** @throws BelljarError `INVALID_ARGUMENT` when standard input is to be a terminal's and is none. */
export function checkTerminal(wanted: { readonly interactive: boolean; readonly tty: boolean }): void {
  if (wanted.tty && wanted.interactive && !process.stdin.isTTY) {
    throw new BelljarError("INVALID_ARGUMENT", "-t with -i needs a terminal, and standard input is none", {
      remedy: "Leave out -t when piping into a container.",
    });
  }
}

/** Undefined when there is no terminal, or one that does not know its size (a pseudo-terminal nobody gave one). */
export function terminalSize(): TerminalSize | undefined {
  const { isTTY, columns, rows } = process.stdout;
  return isTTY && columns > 0 && rows > 0 ? { columns, rows } : undefined;
}

/** Hands the terminal over, telling its size now and whenever it changes; the answer takes it back. */
export function takeTerminal(onResize: (size: TerminalSize) => void): Disposable {
  const raw = process.stdin.isTTY;
  if (raw) process.stdin.setRawMode(true);
  const resized = (): void => {
    const size = terminalSize();
    if (size !== undefined) onResize(size);
  };
  process.stdout.on("resize", resized);
  resized();
  return {
    [Symbol.dispose]: () => {
      process.stdout.off("resize", resized);
      if (raw) process.stdin.setRawMode(false);
    },
  };
}
