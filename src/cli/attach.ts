/** Connects a process in a sandbox to this one: three streams, signals, window size, exit status. */
import { constants } from "node:os";
import { BelljarError, hasErrno } from "../base/index.ts";
import type { Process } from "../sdk/index.ts";
import type { SignalRelay } from "./signals.ts";
import { takeTerminal } from "./terminal.ts";

export interface AttachOptions {
  readonly relay: SignalRelay;
  readonly interactive: boolean;
  readonly tty: boolean;
}

/** Resolves with the exit status once the process has ended and all it wrote has been written here. */
export async function attachStreams(main: Process, options: AttachOptions): Promise<number> {
  options.relay.forwardTo((signal) => {
    // A signal that cannot be delivered any more changes nothing: the process is on its way out, and `status` says so.
    main.signal(constants.signals[signal]).catch(() => {});
  });
  using _terminal = options.tty
    ? takeTerminal((size) => {
        main.resize(size).catch(() => {});
      })
    : undefined;
  const input = options.interactive ? pumpInput(main) : undefined;
  const pump = async (from: AsyncIterable<Uint8Array>, to: NodeJS.WriteStream): Promise<void> => {
    // When our reader has gone (`| head`), the workload gets what a local program would: SIGPIPE.
    if (!(await pumpOutput(from, to))) await main.signal(constants.signals.SIGPIPE);
  };
  const outputs = [pump(main.stdout, process.stdout)];
  if (!options.tty) outputs.push(pump(main.stderr, process.stderr));
  const [status] = await Promise.all([main.status, ...outputs]);
  await input?.stop();
  if (status.launchError !== undefined) {
    const reason = status.exitCode === 127 ? "COMMAND_NOT_FOUND" : "COMMAND_NOT_EXECUTABLE";
    throw new BelljarError(reason, `the command cannot be executed: ${status.launchError}`);
  }
  return status.exitCode;
}

/** Copies until the end; false when whoever reads our output has gone. */
async function pumpOutput(from: AsyncIterable<Uint8Array>, to: NodeJS.WriteStream): Promise<boolean> {
  let failure: unknown;
  const onError = (error: unknown): void => {
    failure ??= error;
  };
  to.on("error", onError);
  try {
    for await (const chunk of from) {
      if (failure === undefined && !to.write(chunk)) await drained(to);
      if (failure !== undefined) {
        if (hasErrno(failure, "EPIPE")) return false;
        throw failure;
      }
    }
    await new Promise<void>((resolve) => to.write("", () => resolve()));
    return !hasErrno(failure, "EPIPE");
  } finally {
    to.off("error", onError);
  }
}

function drained(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off("drain", done);
      stream.off("error", done);
      stream.off("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("error", done);
    stream.on("close", done);
  });
}

interface InputPump {
  stop(): Promise<void>;
}

function pumpInput(main: Process): InputPump {
  const writer = main.stdin.getWriter();
  let stopped = false;
  const pump = async (): Promise<void> => {
    for await (const chunk of process.stdin) {
      if (stopped) return;
      await writer.write(chunk);
    }
    if (!stopped) await writer.close();
  };
  // The process may end, or close its input, while we still have some: no failure of ours.
  const running = pump().catch(() => {});
  return {
    stop: async () => {
      stopped = true;
      process.stdin.destroy();
      await writer.abort().catch(() => {});
      await running;
    },
  };
}
