/** SIGTERM and SIGINT tell a daemon to stop; a second one changes nothing, it is stopping already. */
import type { Daemon } from "./daemon.ts";

const SIGNALS = ["SIGTERM", "SIGINT"] as const;

export function stopOnSignals(daemon: Daemon): Disposable {
  const onSignal = (): void => {
    // Whoever waits for `stopped` learns how it went.
    daemon.stop().catch(() => {});
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return {
    [Symbol.dispose]: () => {
      for (const signal of SIGNALS) process.off(signal, onSignal);
    },
  };
}
