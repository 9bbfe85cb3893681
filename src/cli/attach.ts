/** Connects a process in a sandbox to this one: three streams, signals, window size, exit status. */
import { constants } from "node:os";
import { BelljarError } from "../base/index.ts";
import type { ProcessHandle } from "../sdk/index.ts";
import { DetachKeys } from "./detach-keys.ts";
import type { SignalRelay } from "./signals.ts";
import { writeFully } from "./standard-output.ts";
import { takeTerminal } from "./terminal.ts";

export interface AttachOptions {
  readonly relay: SignalRelay;
  readonly interactive: boolean;
  readonly tty: boolean;
}

/**
 * Resolves with the exit status once the process has ended and all it wrote has been written here; with undefined when the
 * user has left it alone with the detach keys.
 */
export async function attachStreams(main: ProcessHandle, options: AttachOptions): Promise<number | undefined> {
  options.relay.forwardTo((signal) => {
    // A signal that cannot be delivered any more changes nothing: the process is on its way out, and `status` says so.
    main.signal(constants.signals[signal]).catch(() => {});
  });
  using _terminal = options.tty
    ? takeTerminal((size) => {
        main.resize(size).catch(() => {});
      })
    : undefined;
  const input = options.interactive ? pumpInput(main, options.tty) : undefined;
  const pump = async (from: AsyncIterable<Uint8Array>, to: NodeJS.WriteStream): Promise<void> => {
    // When our reader has gone (`| head`), the workload gets what a local program would: SIGPIPE.
    if (!(await pumpOutput(from, to))) await main.signal(constants.signals.SIGPIPE);
  };
  const outputs = [pump(main.stdout, process.stdout)];
  if (!options.tty) outputs.push(pump(main.stderr, process.stderr));
  const ended = Promise.all([main.status, ...outputs]);
  const first = await (input === undefined ? ended : Promise.race([ended, input.detached]));
  await input?.stop();
  if (first === undefined) {
    // Nobody waits for these any more; they end with the connection.
    ended.catch(() => {});
    return undefined;
  }
  const [status] = first;
  if (status.launchError !== undefined) {
    const reason = status.exitCode === 127 ? "COMMAND_NOT_FOUND" : "COMMAND_NOT_EXECUTABLE";
    throw new BelljarError(reason, `the command cannot be executed: ${status.launchError}`);
  }
  return status.exitCode;
}

/** Copies until the end; false when whoever reads our output has gone. */
async function pumpOutput(from: AsyncIterable<Uint8Array>, to: NodeJS.WriteStream): Promise<boolean> {
  for await (const chunk of from) if (!(await writeFully(to, chunk))) return false;
  return await writeFully(to, new Uint8Array(0));
}

interface InputPump {
  /** Resolves when the user has typed the detach keys. */
  readonly detached: Promise<undefined>;
  stop(): Promise<void>;
}

function pumpInput(main: ProcessHandle, tty: boolean): InputPump {
  const writer = main.stdin.getWriter();
  const detached = Promise.withResolvers<undefined>();
  const keys = tty ? new DetachKeys() : undefined;
  let stopped = false;
  const pump = async (): Promise<void> => {
    for await (const chunk of process.stdin) {
      if (stopped) return;
      const bytes = keys === undefined ? chunk : keys.take(chunk);
      if (bytes.length > 0) await writer.write(bytes);
      if (keys?.isComplete === true) {
        detached.resolve(undefined);
        return;
      }
    }
    if (!stopped) await writer.close();
  };
  // The process may end, or close its input, while we still have some: no failure of ours.
  const running = pump().catch(() => {});
  return {
    detached: detached.promise,
    stop: async () => {
      stopped = true;
      process.stdin.destroy();
      await writer.abort().catch(() => {});
      await running;
    },
  };
}
