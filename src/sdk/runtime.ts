/**
 * One root, for programs: in this process (`Runtime.open`, which owns the root) or behind its daemon (`Runtime.connect`), with
 * the same interface. Images and guest images are files that any number of processes may use: they are at hand in both.
 */
import { type Log, silentLog, throwIfAborted } from "../base/index.ts";
import { daemonSocketPath } from "../daemon/index.ts";
import type { Checkpoints, Recovered, SandboxCreateConfig, Sandboxes, Volumes } from "../runtime/index.ts";
import { connectDaemon, type DaemonStatus } from "./daemon-status.ts";
import type { HostParts } from "./host-parts.ts";
import { LazyHost } from "./lazy-host.ts";
import { type Paths, resolvePaths } from "./paths.ts";

export interface Runtime extends HostParts, AsyncDisposable {
  readonly sandboxes: Sandboxes;
  readonly checkpoints: Checkpoints;
  readonly volumes: Volumes;
  /** What was found when the root was taken, and what became of it. */
  recovered(): Promise<readonly Recovered[]>;
}

/** Behind a daemon: what it says of itself too. */
export interface ConnectedRuntime extends Runtime {
  daemon(): Promise<DaemonStatus>;
  /** What it measures, in Prometheus' text format. */
  metrics(): Promise<string>;
}

export interface OpenOptions {
  /** Where things are; the defaults of the host when left out. */
  readonly paths?: Paths | undefined;
  /** Directory of all state, in place of the default one. */
  readonly root?: string | undefined;
  readonly log?: Log | undefined;
  /**
   * VMs that run and wait for the next sandboxes of a kind that was created before: those start several times as fast. Each takes the
   * memory of a small VM and some seconds of CPU. Of a daemon that runs already, whoever started it has decided. None unless told.
   */
  readonly poolSize?: number | undefined;
  /**
   * VMMs that wait for the next restores and forks of a kind that was made before, which need not start one then. Each takes 30 MB of
   * memory. As with `poolSize`, whoever started a daemon has decided. None unless told.
   */
  readonly spareCount?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ConnectOptions extends OpenOptions {
  /** Where the daemon listens; found by the root unless told. */
  readonly socketPath?: string | undefined;
  /** Start a daemon when there is none; true unless told. */
  readonly startDaemon?: boolean | undefined;
  /** Told of the pid when one was started. */
  readonly onDaemonStarted?: ((pid: number) => void) | undefined;
}

export const Runtime = {
  /**
   * Owns the root in this process: opens the state under it, making what is missing, and recovers every sandbox. Closing it
   * leaves them running.
   * @throws BelljarError `ROOT_LOCKED` when the daemon or another process owns the root
   */
  async open(options: OpenOptions = {}): Promise<Runtime> {
    throwIfAborted(options.signal);
    const paths = pathsOf(options);
    const parts = new LazyHost(paths, options.log ?? silentLog, options);
    const core = await (await parts.open()).openRuntime();
    return {
      ...membersOf(parts),
      sandboxes: keepingAlive(core.sandboxes),
      checkpoints: core.checkpoints,
      volumes: core.volumes,
      recovered: async () => core.recovered,
      [Symbol.asyncDispose]: () => core.release(),
    };
  },

  /** Talks to the root's daemon, and starts it when there is none. @throws BelljarError `DAEMON_UNAVAILABLE`, `DAEMON_START_FAILED` */
  async connect(options: ConnectOptions = {}): Promise<ConnectedRuntime> {
    throwIfAborted(options.signal);
    const paths = pathsOf(options);
    const log = options.log ?? silentLog;
    const daemon = await connectDaemon({
      paths,
      log,
      socketPath: options.socketPath ?? daemonSocketPath(paths.run),
      startDaemon: options.startDaemon !== false,
      poolSize: options.poolSize,
      spareCount: options.spareCount,
      onStarted: options.onDaemonStarted,
      signal: options.signal,
    });
    return {
      ...membersOf(new LazyHost(paths, log)),
      sandboxes: keepingAlive(daemon.sandboxes),
      checkpoints: daemon.checkpoints,
      volumes: daemon.volumes,
      recovered: async () => (await daemon.status()).recovered,
      daemon: () => daemon.status(),
      metrics: () => daemon.metrics(),
      [Symbol.asyncDispose]: () => daemon.close(),
    };
  },
};

function pathsOf({ paths, root }: OpenOptions): Paths {
  return paths ?? resolvePaths({ root }, {}, process.getuid?.() ?? 0);
}

function membersOf(parts: LazyHost): HostParts {
  return {
    paths: parts.paths,
    images: parts.images,
    guestImages: parts.guestImages,
    templates: parts.templates,
    archives: parts.archives,
    doctor: (options) => parts.doctor(options),
    buildGuestImage: (options) => parts.buildGuestImage(options),
  };
}

/** A program that names no command wants a container to use: what the image would run by itself often ends at once. */
function keepingAlive(sandboxes: Sandboxes): Sandboxes {
  return {
    create: (config, options) =>
      sandboxes.create(typeof config.template === "string" ? config : withKeepAlive(config), options),
    get: (nameOrId) => sandboxes.get(nameOrId),
    list: () => sandboxes.list(),
    events: (options) => sandboxes.events(options),
  };
}

function withKeepAlive(config: SandboxCreateConfig): SandboxCreateConfig {
  const { container = {} } = config;
  const isSaid = container.command !== undefined || container.entrypoint !== undefined;
  return isSaid || container.keepAlive !== undefined
    ? config
    : { ...config, container: { ...container, keepAlive: true } };
}
