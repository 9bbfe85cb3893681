/**
 * From a command line to a QEMU that answers and whose guest runs (or is loaded, and paused). One time limit and the caller's
 * signal cover all of it; on any error the process is gone and the run directory clean before the error is thrown.
 */
import { BelljarError, cancelledError, publishStep, systemClock, vmmLimits } from "../../base/index.ts";
import type { StartOptions } from "../interface.ts";
import { GuestConsole } from "./console.ts";
import { diskInUseError, isLocked, lockedPath } from "./disk-lock.ts";
import { checkVersion, qemuInfo } from "./qemu-binary.ts";
import { QmpClient, tryConnect } from "./qmp.ts";
import { type RunFiles, removeRunFiles } from "./run-files.ts";
import { lastLines, readTail } from "./text-tail.ts";
import { killProcess, spawnVmm, type VmmProcess } from "./vmm-process.ts";

export interface LaunchPlan {
  readonly binary: string;
  readonly args: readonly string[];
  readonly files: RunFiles;
  /** Path; the caller's own unless told. */
  readonly networkNamespace?: string | undefined;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onSpawn?: StartOptions["onSpawn"];
  /** What is done to a QEMU that has answered, before it is anybody's. */
  readonly begin: (started: Launched, signal: AbortSignal) => Promise<void>;
}

export interface Connections {
  readonly qmp: QmpClient;
  readonly console: GuestConsole;
}

export interface Launched extends Connections {
  readonly process: VmmProcess;
}

/** @throws BelljarError `VMM_MISSING`, `VMM_TOO_OLD`, `VMM_START_FAILED`, `VMM_PROTOCOL`, `NOT_ENOUGH_MEMORY`, `CANCELLED` */
export async function launch(plan: LaunchPlan): Promise<Launched> {
  using limit = startSignal(plan.timeoutMs, plan.signal, "start");
  const { signal } = limit;
  if (signal.aborted) throw cancelledError(signal);
  let process: VmmProcess | undefined;
  let connections: Connections | undefined;
  let exit: string | undefined;
  try {
    process = await publishStep("child", "qemu", () =>
      spawnVmm(plan.binary, plan.args, plan.files.log, plan.networkNamespace),
    );
    void process.ended.then((how) => {
      exit = how;
    });
    // Moving a process to another control group takes the kernel 10 to 20 ms, in which QEMU gets ready.
    const told = plan.onSpawn?.(process.identity);
    told?.catch(() => {});
    connections = await openConnections(plan.files, signal, async () => {
      if (exit !== undefined) throw new BelljarError("VMM_DIED", `QEMU ${exit}`);
    });
    await told;
    const started = { process, ...connections };
    await plan.begin(started, signal);
    return started;
  } catch (error) {
    connections?.qmp.close();
    connections?.console.close();
    const log = lastLines(await readTail(plan.files.log));
    // A process that was about to end by itself gets a moment to say how.
    if (process !== undefined) {
      await Promise.race([process.ended, killProcess(process.identity)]);
      await process.ended;
    }
    await removeRunFiles(plan.files);
    throw await startError(error, plan, exit, log);
  }
}

/** Connects to a QEMU's control and console sockets, which may not exist yet; `alive` throws when they never will. */
export async function openConnections(
  files: RunFiles,
  signal: AbortSignal,
  alive: () => Promise<void>,
): Promise<Connections> {
  const connectSoon = async (path: string) => {
    for (;;) {
      if (signal.aborted) throw cancelledError(signal);
      const socket = await tryConnect(path);
      if (socket !== undefined) return socket;
      await alive();
      await systemClock.sleep(vmmLimits.pollIntervalMs, signal).catch(() => {});
    }
  };
  const qmp = new QmpClient(await connectSoon(files.qmpSocket));
  try {
    // The caller's limit bounds it; the command's own would only hide whose limit it was.
    checkVersion(await qmp.handshake({ signal, timeoutMs: WHOLE_START_MS }));
    return { qmp, console: new GuestConsole(await connectSoon(files.consoleSocket)) };
  } catch (error) {
    qmp.close();
    throw error;
  }
}

/** Longer than any start may take. */
const WHOLE_START_MS = 24 * 60 * 60_000;

export interface StartLimit extends Disposable {
  /** Fires at the caller's signal or when time is up; its reason is the error to throw. */
  readonly signal: AbortSignal;
}

export function startSignal(timeoutMs: number, outer: AbortSignal | undefined, what: string): StartLimit {
  const controller = new AbortController();
  const onAbort = (): void => controller.abort(cancelledError(outer));
  const timer = setTimeout(() => {
    controller.abort(
      new BelljarError("VMM_START_FAILED", `QEMU did not ${what} within ${timeoutMs} ms`, { facts: { timeoutMs } }),
    );
  }, timeoutMs);
  outer?.addEventListener("abort", onAbort, { once: true });
  if (outer?.aborted === true) onAbort();
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      outer?.removeEventListener("abort", onAbort);
    },
  };
}

/** The error that says best why a start failed. */
async function startError(
  error: unknown,
  plan: LaunchPlan,
  exit: string | undefined,
  log: readonly string[],
): Promise<unknown> {
  if (!(error instanceof BelljarError)) return error;
  if (plan.signal?.aborted === true) return cancelledError(plan.signal);
  if (error.reason === "VMM_MISSING" || error.reason === "VMM_TOO_OLD") return error;
  const words = log.length === 0 ? "" : `: ${log.join("; ")}`;
  if (log.some((line) => /cannot allocate memory/i.test(line))) {
    return new BelljarError("NOT_ENOUGH_MEMORY", `QEMU could not get the memory for the VM${words}`);
  }
  if (isLocked(words)) return diskInUseError(lockedPath(words) ?? "", error);
  // One that is too old may not even understand its command line.
  const tooOld = await qemuInfo(plan.binary).then(
    () => undefined,
    (reason: unknown) => (reason instanceof BelljarError && reason.reason === "VMM_TOO_OLD" ? reason : undefined),
  );
  if (tooOld !== undefined) return tooOld;
  if (error.reason === "VMM_DIED") {
    return new BelljarError("VMM_START_FAILED", `QEMU ${exit ?? "ended"} while it was starting${words}`, {
      facts: { log },
    });
  }
  return new BelljarError(error.reason, `${error.message}${words}`, {
    facts: { ...error.facts, log },
    cause: error.cause,
  });
}
