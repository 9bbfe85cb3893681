/** The daemon as a client sees it: reached, asked who it is, told to stop. */
import { setTimeout as sleep } from "node:timers/promises";
import { apiLimits, BelljarError, identifyProcess, isAlive, type Log } from "../base/index.ts";
import type { Checkpoints, Recovered, Sandboxes, Volumes } from "../runtime/index.ts";
import type { Paths } from "./paths.ts";

export interface DaemonStatus {
  readonly pid: number;
  readonly version: string;
  readonly root: string;
  readonly startedAtMs: number;
  /** It ends by itself when nobody needs it. */
  readonly onDemand: boolean;
  readonly connections: number;
  readonly recovered: readonly Recovered[];
}

export interface ConnectDaemonOptions {
  readonly paths: Paths;
  readonly log: Log;
  readonly socketPath: string;
  readonly startDaemon: boolean;
  readonly poolSize?: number | undefined;
  readonly spareCount?: number | undefined;
  readonly onStarted?: ((pid: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** How long a lost daemon is looked for. */
  readonly reconnectTimeoutMs?: number | undefined;
}

export interface ConnectedDaemon {
  readonly sandboxes: Sandboxes;
  readonly checkpoints: Checkpoints;
  readonly volumes: Volumes;
  status(): Promise<DaemonStatus>;
  /** What it measures, in Prometheus' text format. */
  metrics(): Promise<string>;
  /** Tells it to stop, and waits until its process is gone; sandboxes run on. */
  stop(): Promise<number>;
  close(): Promise<void>;
}

/** @throws BelljarError `DAEMON_UNAVAILABLE`, `DAEMON_START_FAILED`, `CANCELLED` */
export async function connectDaemon(options: ConnectDaemonOptions): Promise<ConnectedDaemon> {
  const { paths, log, socketPath, onStarted, reconnectTimeoutMs } = options;
  // Loaded here: whoever owns the root in its own process needs none of it.
  const { ConnectedCheckpoints, ConnectedSandboxes, ConnectedVolumes, DaemonLauncher, DaemonLink } = await import(
    "./connected/index.ts"
  );
  const launcher = options.startDaemon ? new DaemonLauncher(paths, log, options) : undefined;
  const link = new DaemonLink({ socketPath, launcher, reconnectTimeoutMs });
  const status = async (): Promise<DaemonStatus> => {
    const answer = await link.call({ what: "the daemon was asked for", repeatable: true }, ({ daemon }, call) =>
      daemon.getDaemon({}, call),
    );
    const { pid, version, root, startedAtMs, onDemand, connections, recovered } = answer;
    const notes = recovered.map(({ kind, name, what }) => ({ kind: kindOf(kind), name, what }));
    return { pid, version, root, startedAtMs, onDemand, connections, recovered: notes };
  };
  try {
    await link.reach(options.signal);
    // Of several who start one at once, one takes the root.
    const startedPid = launcher?.startedPid;
    if (onStarted !== undefined && startedPid !== undefined && (await status()).pid === startedPid)
      onStarted(startedPid);
  } catch (error) {
    await link.close();
    throw error;
  }
  return {
    sandboxes: new ConnectedSandboxes(link),
    checkpoints: new ConnectedCheckpoints(link),
    volumes: new ConnectedVolumes(link),
    status,
    metrics: async () => {
      const answer = await link.call({ what: "metrics were asked for", repeatable: true }, ({ daemon }, call) =>
        daemon.getMetrics({}, call),
      );
      return answer.text;
    },
    stop: async () => {
      const { pid } = await status();
      const identity = await identifyProcess(pid);
      await link.call({ what: "the daemon was told to stop", repeatable: false }, ({ daemon }, call) =>
        daemon.stopDaemon({}, call),
      );
      await link.close();
      const until = performance.now() + apiLimits.stopTimeoutMs;
      while (identity !== undefined && (await isAlive(identity))) {
        if (performance.now() > until) {
          throw new BelljarError("DEADLINE_EXCEEDED", `the daemon (pid ${pid}) did not end`, { facts: { pid } });
        }
        await sleep(apiLimits.reconnectIntervalMs);
      }
      return pid;
    },
    close: () => link.close(),
  };
}

const RECOVERED_KINDS = ["sandbox", "vm", "sockets", "unfinished", "unreadable", "probe", "device"] as const;

function kindOf(word: string): Recovered["kind"] {
  return RECOVERED_KINDS.find((kind) => kind === word) ?? "unreadable";
}
