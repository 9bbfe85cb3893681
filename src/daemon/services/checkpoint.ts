/**
 * Checkpoints, restore and fork over the API: each call is one of the runtime. What was made for a client that gave up while the
 * last of it was done is deleted: nobody would know of it.
 */
import type { ServiceImpl } from "@connectrpc/connect";
import { BelljarError, cancelledError, type Log, messageChain } from "../../base/index.ts";
import type { api } from "../../protocol/index.ts";
import type { RuntimeCore, SandboxHandle } from "../../runtime/index.ts";
import { fromRestoredContainer, fromRestoreSpec, toCheckpointInfo, toRestoreReport } from "../wire/checkpoints.ts";
import { toSandboxInfo } from "../wire/info.ts";

export function checkpointService(
  { sandboxes, checkpoints }: Pick<RuntimeCore, "sandboxes" | "checkpoints">,
  log: Log,
): ServiceImpl<typeof api.CheckpointService> {
  return {
    createCheckpoint: async ({ sandbox, name, stop, asTemplate, compress }, { signal }) => {
      const found = await sandboxes.get(sandbox);
      return { checkpoint: toCheckpointInfo(await found.checkpoint({ name, stop, asTemplate, compress, signal })) };
    },
    getCheckpoint: async ({ checkpoint }) => ({ checkpoint: toCheckpointInfo(await checkpoints.get(checkpoint)) }),
    listCheckpoints: async () => ({ checkpoints: (await checkpoints.list()).map(toCheckpointInfo) }),
    restoreCheckpoint: async ({ checkpoint, spec }, { signal }) => {
      const made = await checkpoints.restore(checkpoint, { ...fromRestoreSpec(spec), signal });
      const [sandbox] = await told([made], signal, log);
      return sandbox === undefined ? {} : { sandbox };
    },
    beginRestore: async ({ checkpoint, spec }) => {
      const { id, expected } = await checkpoints.begin(checkpoint, fromRestoreSpec(spec));
      return { session: id, expected: [...expected] };
    },
    addRestoredContainer: async ({ session, container }) => {
      await (await checkpoints.session(session)).add(fromRestoredContainer(container));
      return {};
    },
    waitRestore: async ({ session, noWait }, { signal }) => {
      const found = await checkpoints.session(session);
      const expected = [...found.expected];
      if (noWait) return { expected };
      return { expected, sandbox: toSandboxInfo(await (await found.wait({ signal })).info()) };
    },
    endRestore: async ({ session }) => {
      const found = await checkpoints.session(session).catch((error: unknown) => {
        if (BelljarError.from(error).reason !== "CHECKPOINT_NOT_FOUND") throw error;
      });
      await found?.[Symbol.asyncDispose]();
      return {};
    },
    waitCheckpoint: async ({ sandbox }, { signal }) => {
      const found = await sandboxes.get(sandbox);
      return { checkpoint: toCheckpointInfo(await found.waitForCheckpoint({ signal })) };
    },
    waitRestored: async ({ sandbox }, { signal }) => {
      await (await sandboxes.get(sandbox)).waitForRestore({ signal });
      return {};
    },
    checkRestore: async ({ checkpoint, spec }, { signal }) =>
      toRestoreReport(await checkpoints.check(checkpoint, { ...fromRestoreSpec(spec), signal })),
    verifyCheckpoint: async ({ checkpoint }, { signal }) => ({
      checkpoint: toCheckpointInfo(await checkpoints.verify(checkpoint, { signal })),
    }),
    removeCheckpoint: async ({ checkpoint }) => ({
      checkpoint: toCheckpointInfo(await checkpoints.remove(checkpoint)),
    }),
    rewindSandbox: async ({ sandbox, checkpoint, beforeMs, keepExec }, { signal }) => {
      const found = await sandboxes.get(sandbox);
      return { checkpoint: toCheckpointInfo(await found.rewind({ checkpoint, beforeMs, keepExec, signal })) };
    },
    forkSandbox: async ({ sandbox, count, name, keepExec }, { signal }) => {
      const source = await sandboxes.get(sandbox);
      return { sandboxes: await told(await source.fork({ count, name, keepExec, signal }), signal, log) };
    },
  };
}

/** What the client is told of new sandboxes; deletes them when it has gone meanwhile. */
async function told(
  made: readonly SandboxHandle[],
  signal: AbortSignal,
  log: Log,
): Promise<ReturnType<typeof toSandboxInfo>[]> {
  try {
    const infos = await Promise.all(made.map(async (sandbox) => toSandboxInfo(await sandbox.info())));
    if (signal.aborted) throw cancelledError(signal);
    return infos;
  } catch (error) {
    for (const outcome of await Promise.allSettled(made.map((sandbox) => sandbox.delete({ force: true })))) {
      if (outcome.status === "rejected") {
        log.warn("a sandbox that nobody knows of was not deleted", { error: messageChain(outcome.reason).join(": ") });
      }
    }
    throw error;
  }
}
