/**
 * What becomes of what is printed. A reader that goes away (`| head`) is its right: nothing is said, and whatever would print for ever
 * ends. That a file system is full is a failure, which a script that reads the file later could not know of.
 */
import { constants } from "node:os";
import { BelljarError, hasErrno } from "../base/index.ts";

interface Printing {
  failure: Error | undefined;
  readonly stop: AbortController;
}

/** Node forgets the failures of these streams by itself. */
const watched = new WeakMap<NodeJS.WriteStream, Printing>();

/** To be called before anything is printed. */
export function watchPrinting(stream: NodeJS.WriteStream): void {
  const printing: Printing = { failure: undefined, stop: new AbortController() };
  watched.set(stream, printing);
  stream.on("error", (error) => {
    printing.failure ??= error;
    const facts = { signal: "SIGPIPE", signalNumber: constants.signals.SIGPIPE };
    printing.stop.abort(new BelljarError("CANCELLED", "nobody reads the output any more", { facts }));
  });
}

/** For what prints until it is told to end: fires with `signal`, and when nothing can be printed any more. */
export function whilePrinting(stream: NodeJS.WriteStream, signal: AbortSignal): AbortSignal {
  const printing = watched.get(stream);
  return printing === undefined ? signal : AbortSignal.any([signal, printing.stop.signal]);
}

/** For the end of a program that has printed. @throws BelljarError when not all of it has arrived, though somebody wants it */
export async function checkPrinted(stream: NodeJS.WriteStream): Promise<void> {
  // A failure is told in the next turn.
  await new Promise(setImmediate);
  const failure = watched.get(stream)?.failure;
  if (failure !== undefined && !isReaderGone(failure)) throw notPrinted(failure);
}

/** Waits until the bytes are on their way; false when whoever reads our output has gone. */
export async function writeFully(to: NodeJS.WriteStream, bytes: Uint8Array): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const onError = (error: Error): void => (isReaderGone(error) ? resolve(false) : reject(notPrinted(error)));
  const onClose = (): void => resolve(false);
  to.once("error", onError);
  to.once("close", onClose);
  to.write(bytes, (error) => (error === null || error === undefined ? resolve(true) : onError(error)));
  try {
    return await promise;
  } finally {
    to.off("error", onError);
    to.off("close", onClose);
  }
}

function isReaderGone(error: Error): boolean {
  return hasErrno(error, "EPIPE");
}

function notPrinted(cause: Error): BelljarError {
  const { reason } = BelljarError.from(cause);
  return new BelljarError(reason, "the output cannot be written", {
    cause,
    remedy: "Write it to where there is room for it.",
  });
}
