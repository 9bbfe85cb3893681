/**
 * The daemon, belljard: owns one root and serves its runtime on a Unix socket. It holds nothing that is not also on disk or in
 * the guest: told to stop, or killed, it leaves every sandbox running, and the next one picks them up.
 */
import { apiLimits, type Log, messageChain, VERSION } from "../base/index.ts";
import { api } from "../protocol/index.ts";
import type { RuntimeCore, Sandboxes } from "../runtime/index.ts";
import { Calls } from "./calls.ts";
import { Listener } from "./listener.ts";
import { type CallOutcome, DaemonMetrics, METRICS_CONTENT_TYPE } from "./metrics/daemon-metrics.ts";
import { daemonSocketPath } from "./places.ts";
import { type RemoteConfig, RemoteListener } from "./remote-listener.ts";
import { handleRequests } from "./requests.ts";
import { checkpointService } from "./services/checkpoint.ts";
import { containerService } from "./services/container.ts";
import { daemonService } from "./services/daemon.ts";
import { fileService } from "./services/files.ts";
import { processService } from "./services/process.ts";
import { sandboxService } from "./services/sandbox.ts";
import { volumeService } from "./services/volume.ts";
import { SpanExporter } from "./traces/exporter.ts";
import { Tracer } from "./traces/tracer.ts";

/** What the daemon needs of the runtime: its sandboxes, and to be let go. */
export type ServedRuntime = Pick<RuntimeCore, "sandboxes" | "checkpoints" | "volumes" | "recovered" | "release">;

export interface DaemonDeps {
  readonly root: string;
  readonly runDir: string;
  readonly log: Log;
  /** Takes the root's lock. @throws BelljarError `ROOT_LOCKED` when another process has it */
  readonly openRuntime: () => Promise<ServedRuntime>;
  /** End after so long without a client and without a VM; for ever unless told. */
  readonly idleExitMs?: number | undefined;
  readonly idleCheckMs?: number | undefined;
  readonly maxCalls?: number | undefined;
  /** The Unix socket, where systemd has made it. */
  readonly inheritedFd?: number | undefined;
  /** Of a collector that is sent traces, OTLP over HTTP; none unless told. */
  readonly tracesEndpoint?: string | undefined;
  /** TCP besides. */
  readonly remote?: RemoteConfig | undefined;
}

export interface Daemon {
  readonly socketPath: string;
  /** Of TCP, where it listens there. */
  readonly remotePort: number | undefined;
  /** Stops accepting, ends streams, lets the runtime go, removes the socket. Idempotent. */
  stop(): Promise<void>;
  /** Resolves when it has stopped, whoever asked for it. */
  readonly stopped: Promise<void>;
}

export async function serveDaemon(deps: DaemonDeps): Promise<Daemon> {
  const { log } = deps;
  const startedAtMs = Date.now();
  const runtime = await deps.openRuntime();
  const socketPath = daemonSocketPath(deps.runDir);
  const metrics = new DaemonMetrics();
  const { tracesEndpoint } = deps;
  const exporter = tracesEndpoint === undefined ? undefined : new SpanExporter({ endpoint: tracesEndpoint, log });
  const tracer = exporter === undefined ? undefined : new Tracer({ onSpan: (span) => exporter.add(span) });
  const onCall = (outcome: CallOutcome): void => metrics.record(outcome);
  const calls = new Calls({ log, maxCalls: deps.maxCalls, onCall, tracer });
  let listener: Listener;
  let remote: RemoteListener | undefined;
  const stopped = Promise.withResolvers<void>();
  let stopping: Promise<void> | undefined;
  let idleTimer: NodeJS.Timeout | undefined;

  const stopOnce = async (): Promise<void> => {
    clearInterval(idleTimer);
    log.info("stopping", { root: deps.root });
    try {
      await listener.stopListening();
      remote?.stopListening();
      await calls.drain(apiLimits.drainTimeoutMs);
      await Promise.all([listener, remote].map((each) => each?.close(apiLimits.drainTimeoutMs)));
    } finally {
      metrics[Symbol.dispose]();
      tracer?.[Symbol.dispose]();
      await exporter?.close();
      await runtime.release();
    }
    log.info("stopped", { root: deps.root });
  };
  const stop = (): Promise<void> => {
    if (stopping === undefined) {
      stopping = stopOnce();
      stopping.then(stopped.resolve, stopped.reject);
    }
    return stopping;
  };

  const countConnections = (): number => listener.connections + (remote?.connections ?? 0);
  const renderMetrics = (): Promise<string> =>
    metrics.render({
      sandboxes: runtime.sandboxes,
      connections: countConnections,
      callsUnderWay: () => calls.underWay,
    });

  const handle = handleRequests({
    log,
    pages: new Map([["/metrics", { contentType: METRICS_CONTENT_TYPE, render: renderMetrics }]]),
    routes: (router) => {
      router.service(api.SandboxService, sandboxService(runtime.sandboxes, calls));
      router.service(api.ContainerService, containerService(runtime.sandboxes, calls));
      router.service(api.ProcessService, processService(runtime.sandboxes, calls));
      router.service(api.CheckpointService, checkpointService(runtime, log));
      router.service(api.VolumeService, volumeService(runtime.volumes));
      router.service(api.FileService, fileService(runtime.sandboxes, calls));
      router.service(
        api.DaemonService,
        daemonService({
          info: () => ({
            pid: process.pid,
            version: VERSION,
            root: deps.root,
            startedAtMs,
            onDemand: deps.idleExitMs !== undefined,
            connections: countConnections(),
            recovered: runtime.recovered.map((each) => ({ ...each })),
          }),
          metrics: renderMetrics,
          stop: () => void stop(),
        }),
      );
    },
    interceptors: [calls.interceptor],
    shutdownSignal: calls.endSignal,
    grpc: false,
    grpcWeb: false,
    acceptCompression: [],
    readMaxBytes: apiLimits.messageMaxBytes,
    writeMaxBytes: apiLimits.messageMaxBytes,
  });
  try {
    if (deps.remote !== undefined) remote = await RemoteListener.open({ config: deps.remote, handle, log });
    listener = await Listener.open({ socketPath, handle, log, inheritedFd: deps.inheritedFd });
  } catch (error) {
    metrics[Symbol.dispose]();
    tracer?.[Symbol.dispose]();
    remote?.stopListening();
    await runtime.release();
    throw error;
  }
  if (deps.idleExitMs !== undefined) {
    const isBusy = async (): Promise<boolean> => countConnections() > 0 || (await hasVm(runtime.sandboxes, log));
    idleTimer = watchIdleness(isBusy, deps.idleExitMs, deps.idleCheckMs ?? apiLimits.idleCheckMs, () => {
      log.info("nobody needs this daemon any more");
      stop().catch(() => {});
    });
  }
  log.info("listening", { root: deps.root, socket: socketPath, tcpPort: remote?.port, pid: process.pid });
  return { socketPath, remotePort: remote?.port, stop, stopped: stopped.promise };
}

async function hasVm(sandboxes: Sandboxes, log: Log): Promise<boolean> {
  try {
    return (await sandboxes.list()).some(({ state, problem, hibernation, restart }) => {
      // Without ports it can wait for the next daemon as well as for this one.
      const isAtRest = restart?.nextAtMs === undefined && (state === "stopped" || hibernation?.ports.length === 0);
      return !isAtRest && problem === undefined;
    });
  } catch (error) {
    log.warn("the sandboxes could not be listed", { error: messageChain(error).join(": ") });
    return true;
  }
}

function watchIdleness(
  isBusy: () => Promise<boolean>,
  idleExitMs: number,
  checkMs: number,
  onIdle: () => void,
): NodeJS.Timeout {
  let idleSinceMs = performance.now();
  const timer = setInterval(async () => {
    if (await isBusy()) idleSinceMs = performance.now();
    else if (performance.now() - idleSinceMs >= idleExitMs) {
      clearInterval(timer);
      onIdle();
    }
  }, checkMs);
  return timer;
}
