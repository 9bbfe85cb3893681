/** The daemon over its own API. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { api } from "../../protocol/index.ts";

export interface DaemonFacts {
  info(): MessageInitShape<typeof api.GetDaemonResponseSchema>;
  metrics(): Promise<string>;
  stop(): void;
}

export function daemonService(daemon: DaemonFacts): ServiceImpl<typeof api.DaemonService> {
  return {
    getDaemon: () => daemon.info(),
    getMetrics: async () => ({ text: await daemon.metrics() }),
    stopDaemon: () => {
      // After the answer has gone out.
      setImmediate(() => daemon.stop());
      return { pid: process.pid };
    },
  };
}
