/** Makes a sandbox that goes on where a snapshot was taken: all or nothing. */
import { join } from "node:path";
import { messageChain, sandboxLimits } from "../base/index.ts";
import {
  type CopyIdentity,
  copyLogs,
  copyState,
  findLayers,
  makeCopiedDisks,
  planDisks,
  type Snapshot,
  startCopy,
} from "../checkpoint/index.ts";
import type { CopiedNetworkConfig } from "../network/index.ts";
import { type LoadSource, Sandbox } from "../sandbox/index.ts";
import type { CheckpointsDeps } from "./checkpoint-moves.ts";
import { sandboxDeps } from "./create-sandbox.ts";
import { openGuestImage } from "./guest-image.ts";
import { ManagedSandbox } from "./managed-sandbox.ts";

export interface CopyWish extends CopiedNetworkConfig {
  readonly id: string;
  readonly name: string;
  readonly snapshot: Snapshot;
  readonly event: "restored" | "forked";
  readonly hostname?: string | undefined;
  readonly keepExec: boolean;
  /** Others are made with it: its agent is asked when all of them are. */
  readonly isOneOfMany?: boolean | undefined;
  /** What waits for it, if anything does. */
  readonly takeWaiting?: LoadSource["takeWaiting"];
  /** When the copy ends; as its source did unless told. */
  readonly ends?: CopyIdentity["ends"] | undefined;
  readonly signal?: AbortSignal | undefined;
}

export async function makeCopy(
  { runtime, managed: managedDeps, memory, introductions, onMade }: CheckpointsDeps,
  {
    id,
    name,
    snapshot,
    event,
    hostname = id,
    ports,
    network,
    keepExec,
    isOneOfMany,
    takeWaiting,
    ends,
    signal,
  }: CopyWish,
): Promise<ManagedSandbox> {
  const guestImage = await openGuestImage(runtime.guestImages, snapshot.state.guestImage);
  const deps = sandboxDeps(runtime);
  const disksDir = join(deps.sandboxesDir, id, "disks");
  const identity = {
    id,
    name,
    hostname,
    ports,
    network,
    keepExec,
    ends,
    createdAtMs: runtime.clock.nowMs(),
    runDir: join(runtime.runDir, id),
  };
  const layers = await findLayers(snapshot, join(runtime.rootDir, "images/layers"), disksDir);
  const paths = new Map([...planDisks(snapshot.disks, disksDir), ...layers.paths]);
  const { first, running } = copyState(snapshot.state, identity, paths);
  // Written down with the rest: they need not be said once more when they are made.
  const cgroups = await deps.cgroups.plan(id);
  const planned = first.settings.network && (await deps.networks.plannedAhead(id, first.settings.network));
  const sandbox = await Sandbox.create(deps, {
    ...first,
    cgroups: cgroups.length === 0 ? undefined : cgroups,
    network: planned,
  });
  const managed = new ManagedSandbox(managedDeps(), sandbox);
  onMade(managed);
  const { isIntroduced, asked } = await sandbox.exclusive("create", async () => {
    try {
      await copyLogs(snapshot.logs, sandbox.logsDir);
      return await startCopy({ sandbox, memory, guestImage }, snapshot, {
        event,
        keepExec,
        rests: isOneOfMany,
        running,
        takeWaiting,
        makeDisks: () => makeCopiedDisks(snapshot, layers, disksDir),
        // Whatever goes wrong is told when the copy is taken up, which starts it once more.
        onAsked: () => sandbox.state.containers.forEach(({ id }) => void managed.outputs.start(id).catch(() => {})),
        signal,
      });
    } catch (error) {
      await managed.remove().catch((failure: unknown) => {
        // The state still says "create": the next owner of the root removes what is left.
        sandbox.log.error("a sandbox that failed could not be removed", { cause: messageChain(failure).join(": ") });
      });
      throw error;
    }
  });
  const ask = async (): Promise<void> => {
    await asked;
    await sandbox.agent();
  };
  await managed.takeUp(
    sandboxLimits.monitorGraceMs,
    isIntroduced ? undefined : introductions.introduce(ask, sandbox.gone),
  );
  return managed;
}
