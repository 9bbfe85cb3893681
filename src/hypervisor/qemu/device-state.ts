/**
 * Loads device state that `xen-save-devices-state` wrote into a QEMU that waits for it. QEMU listens on a socket and we
 * write the file into it: its sandbox forbids it the programs that it would otherwise use.
 */
import { open, rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { BelljarError, cancelledError, hasErrno } from "../../base/index.ts";
import { queryStatus } from "./monitor.ts";
import { type QmpClient, tryConnect } from "./qmp.ts";

/** What QEMU is told before there is anything to load. */
export async function expectDevices(qmp: QmpClient, signal?: AbortSignal): Promise<void> {
  await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] }, { signal });
  // A guest that was moved is asked to announce its addresses, five times. A copy's are others, and whoever is to know them learns them.
  await qmp.execute("migrate-set-parameters", { "announce-rounds": 0 }, { signal });
}

/** @throws BelljarError `VMM_START_FAILED` when QEMU does not take the state; `VMM_DIED` when it ends over it. */
export async function loadDevices(
  qmp: QmpClient,
  socketPath: string,
  { path, at }: { readonly path: string; readonly at: number },
  signal: AbortSignal,
): Promise<void> {
  await using file = await open(path).catch((error: unknown) => {
    throw new BelljarError("VMM_START_FAILED", `the device state ${path} cannot be read`, { cause: error });
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => {});
  const stop = qmp.onEvent((event) => {
    if (event.name !== "MIGRATION") return;
    const status = event.data.field("status").string({ maxLength: 64 });
    if (status === "completed") resolve();
    if (status === "failed") reject(new BelljarError("VMM_START_FAILED", "QEMU did not accept the saved device state"));
  });
  void qmp.closed.then((error) =>
    reject(error ?? new BelljarError("VMM_DIED", "QEMU ended over the saved device state")),
  );
  const onAbort = (): void => reject(cancelledError(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await qmp.execute("migrate-incoming", { uri: `unix:${socketPath}` }, { signal });
    const socket = await tryConnect(socketPath);
    if (socket === undefined) throw new BelljarError("VMM_START_FAILED", "QEMU does not listen for device state");
    // A QEMU that ends in the middle breaks the pipe; what it says about that is the better error.
    const fed = pipeline(file.createReadStream({ autoClose: false, start: at }), socket, { signal });
    await Promise.all([
      promise,
      fed.catch((error: unknown) => (isBrokenPipe(error) ? promise : Promise.reject(error))),
    ]);
    const { running, word } = await queryStatus(qmp, { signal });
    if (running) throw new BelljarError("VMM_START_FAILED", `the loaded VM is ${word}, not paused`);
  } finally {
    stop();
    signal.removeEventListener("abort", onAbort);
    await rm(socketPath, { force: true });
  }
}

/** A QEMU that has read all it needs closes its end at once, perhaps before Node has seen the last write through. */
const BROKEN_PIPE = ["EPIPE", "ECONNRESET", "ERR_STREAM_PREMATURE_CLOSE"];

function isBrokenPipe(error: unknown): boolean {
  return BROKEN_PIPE.some((code) => hasErrno(error, code));
}
