/**
 * Each checkpoint puts a file over every disk that is written to. So that this can go on for ever, what lies below is joined into one file
 * once there is much of it: prepared while the sandbox does what it likes, put in place in its turn, and then used by its VMM, which lets
 * go of the files that it had. Whatever fails changes nothing.
 */
import { checkpointLimits } from "../base/index.ts";
import {
  type HostSandbox,
  type PreparedJoin,
  placeJoin,
  prepareJoin,
  removeUnused,
  writtenDisks,
} from "../container/index.ts";

/** Answers how many disks were joined. */
export async function joinOverlays(sandbox: HostSandbox, signal?: AbortSignal): Promise<number> {
  const prepared: PreparedJoin[] = [];
  for (const disk of writtenDisks(sandbox.state.containers)) {
    const join = await prepareJoin(disk, checkpointLimits.overlaysJoined, signal);
    if (join !== undefined) prepared.push(join);
  }
  if (prepared.length === 0) return 0;
  return await sandbox.exclusive("join the disks of", () => placeAll(sandbox, prepared), { signal });
}

async function placeAll(sandbox: HostSandbox, prepared: readonly PreparedJoin[]): Promise<number> {
  let joined = 0;
  for (const each of prepared) {
    const disk = writtenDisks(sandbox.state.containers).find(({ serial }) => serial === each.serial);
    const path = disk && (await placeJoin(disk, each));
    if (disk === undefined || path === undefined) continue;
    joined += 1;
    if (sandbox.hasMachine) {
      const { vm } = sandbox.machine;
      const isOpen = vm.save().disks.some(({ serial }) => serial === each.serial);
      if (isOpen) await vm.useJoined({ serial: each.serial, path });
      await sandbox.update((state) => ({ ...state, vm: vm.save() }));
    }
    await removeUnused(disk);
  }
  return joined;
}
