/** Adds parts to a running QEMU and takes them away again, whole. */
import { BelljarError, systemClock, vmmLimits } from "../../base/index.ts";
import { diskInUseError, isLocked } from "./disk-lock.ts";
import type { BackEnd, PlugParts } from "./plug-parts.ts";
import type { QmpClient } from "./qmp.ts";

/** Adds everything, or changes nothing. */
export async function plug(qmp: QmpClient, parts: PlugParts): Promise<void> {
  const undo: (() => Promise<void>)[] = [];
  try {
    for (const backEnd of parts.backEnds) {
      await addBackEnd(qmp, backEnd);
      undo.push(() => removeBackEnd(qmp, backEnd));
    }
    for (const device of parts.devices) {
      await qmp.execute("device_add", device);
      undo.push(() => removeDevices(qmp, [device.id], parts.what, vmmLimits.unplugTimeoutMs));
    }
  } catch (error) {
    // Over a connection that has ended there is nothing to undo, and the first error is the one to tell.
    for (const step of undo.reverse()) await step().catch(() => {});
    throw diskInUse(error, parts) ?? error;
  }
}

/** The error for a disk that another program has; undefined when that is not what QEMU says. */
function diskInUse(error: unknown, { backEnds }: PlugParts): BelljarError | undefined {
  if (!(error instanceof BelljarError) || !isLocked(error.message)) return undefined;
  const paths = backEnds.flatMap((backEnd) => {
    const file = backEnd.type === "blockdev" ? backEnd.value["file"] : undefined;
    return typeof file === "object" && file !== null && "filename" in file ? [String(file.filename)] : [];
  });
  return diskInUseError(paths[0] ?? "", error);
}

/**
 * Takes away what of it is there: whoever was adding or removing it may have died half-way. Resolves when the guest has let go
 * of it and its files and sockets are closed.
 * @throws BelljarError `DEVICE_REFUSED` when the guest says no, `DEADLINE_EXCEEDED` when it says nothing
 */
export async function unplug(qmp: QmpClient, parts: PlugParts, timeoutMs: number): Promise<void> {
  await removeDevices(qmp, parts.devices.map(({ id }) => id).reverse(), parts.what, timeoutMs);
  for (const backEnd of [...parts.backEnds].reverse()) await removeBackEnd(qmp, backEnd);
}

/** Asks for the first, function 0 of its slot, with which the guest lets go of the others, and waits until all are gone. */
async function removeDevices(qmp: QmpClient, ids: readonly string[], what: string, timeoutMs: number): Promise<void> {
  const waiting = new Set(ids);
  const { promise: gone, resolve, reject } = Promise.withResolvers<void>();
  gone.catch(() => {});
  const forget = (id: string): void => {
    waiting.delete(id);
    if (waiting.size === 0) resolve();
  };
  const stop = qmp.onEvent((event) => {
    const id = event.data.field("device").optional((field) => field.raw);
    if (typeof id !== "string" || !waiting.has(id)) return;
    if (event.name === "DEVICE_DELETED") forget(id);
    if (event.name === "DEVICE_UNPLUG_GUEST_ERROR") reject(refused(what));
  });
  const timer = setTimeout(() => {
    reject(
      new BelljarError("DEADLINE_EXCEEDED", `the guest did not let go of the ${what} within ${timeoutMs} ms`, {
        facts: { timeoutMs },
      }),
    );
  }, timeoutMs);
  // The connection's end is the third way out: without it a VMM that dies here would hold us until the deadline.
  void qmp.closed.then((error) =>
    reject(error ?? new BelljarError("VMM_DIED", `QEMU ended while the ${what} was being removed`)),
  );
  let again: NodeJS.Timeout | undefined;
  const ask = async (): Promise<void> => {
    for (const id of [...waiting]) if (!(await requestRemoval(qmp, id))) forget(id);
    // A guest that boots loses the request: it is said again until it is heard.
    if (waiting.size > 0) again = setTimeout(() => void ask().catch(reject), vmmLimits.unplugRepeatMs);
  };
  try {
    await ask();
    await gone;
  } finally {
    clearTimeout(timer);
    clearTimeout(again);
    stop();
  }
}

/** False when there is no such device. */
async function requestRemoval(qmp: QmpClient, id: string): Promise<boolean> {
  try {
    await qmp.execute("device_del", { id });
  } catch (error) {
    if (!(error instanceof BelljarError)) throw error;
    if (error.facts["qmpClass"] === "DeviceNotFound") return false;
    // Asked before, by us or by an owner that died; QEMU has no error class of its own for it.
    if (!error.message.includes("in the process of unplug")) throw error;
  }
  return true;
}

function refused(what: string): BelljarError {
  return new BelljarError("DEVICE_REFUSED", `the guest refused to let go of the ${what}`);
}

async function addBackEnd(qmp: QmpClient, backEnd: BackEnd): Promise<void> {
  switch (backEnd.type) {
    case "object":
      await qmp.execute("object-add", backEnd.value);
      return;
    case "blockdev":
      await qmp.execute("blockdev-add", backEnd.value);
      return;
    case "chardev": {
      const addr = { type: "unix", data: { path: backEnd.socketPath } };
      await qmp.execute("chardev-add", {
        id: backEnd.id,
        backend: { type: "socket", data: { addr, server: false } },
      });
      return;
    }
    case "netdev":
      await qmp.execute("netdev_add", backEnd.value);
  }
}

/**
 * As far as it is there. QEMU says that a device is gone a moment before it lets go of what is behind it (its memory is given back by
 * another thread), so what is still in use is asked for again.
 */
async function removeBackEnd(qmp: QmpClient, backEnd: BackEnd): Promise<void> {
  const lastMs = performance.now() + vmmLimits.letGoTimeoutMs;
  for (;;) {
    try {
      await requestEnd(qmp, backEnd);
      return;
    } catch (error) {
      // QEMU has no error class of its own for most things that are not there.
      if (!(await isThere(qmp, backEnd))) return;
      if (!isInUse(error) || performance.now() > lastMs) throw error;
    }
    await systemClock.sleep(vmmLimits.pollIntervalMs);
  }
}

async function requestEnd(qmp: QmpClient, { type, id }: BackEnd): Promise<void> {
  if (type === "object") await qmp.execute("object-del", { id });
  else if (type === "blockdev") await qmp.execute("blockdev-del", { "node-name": id });
  else if (type === "chardev") await qmp.execute("chardev-remove", { id });
  else await qmp.execute("netdev_del", { id });
}

function isInUse(error: unknown): boolean {
  return error instanceof BelljarError && /is (in use|busy)/.test(error.message);
}

async function isThere(qmp: QmpClient, { type, id }: BackEnd): Promise<boolean> {
  switch (type) {
    case "object":
      return (await qmp.execute("qom-list", { path: "/objects" }))
        .array((item) => item.field("name").string())
        .includes(id);
    case "blockdev":
      return (await qmp.execute("query-named-block-nodes", { flat: true }))
        .array((node) => node.field("node-name").optional((field) => field.string()))
        .includes(id);
    case "chardev":
      return (await qmp.execute("query-chardev")).array((item) => item.field("label").string()).includes(id);
    case "netdev":
      // Its removal fails for one reason only.
      return false;
  }
}
