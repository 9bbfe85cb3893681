/**
 * Directories for work in progress. Each carries the identity of the process that made it in its name, so that whoever
 * comes later can tell what a dead process left behind from what a live one is busy with.
 */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, identifyProcess, imageLimits, isAlive, newId, runTool } from "../base/index.ts";

const NAME = /^([0-9]+)-([0-9]+)-([0-9a-f-]{36})-[0-9a-f]{12}$/;

export interface StagingDir extends AsyncDisposable {
  readonly path: string;
  /** A new directory in it. */
  makeDir(): Promise<string>;
}

export async function createStagingDir(parent: string): Promise<StagingDir> {
  const self = await identifyProcess(process.pid);
  if (self === undefined) throw new BelljarError("INTERNAL", "this process is not in /proc");
  const path = join(parent, `${self.pid}-${self.startTicks}-${self.bootId}-${newId()}`);
  await mkdir(path, { mode: 0o700 });
  return {
    path,
    makeDir: async () => {
      const made = join(path, newId());
      await mkdir(made, { mode: 0o700 });
      return made;
    },
    [Symbol.asyncDispose]: () => removeTree(path),
  };
}

/** Removes what dead processes left. Answers how many directories that were. */
export async function removeOrphans(parent: string): Promise<number> {
  let removed = 0;
  for (const name of await readdir(parent)) {
    const match = NAME.exec(name);
    if (match !== null) {
      const owner = { pid: Number(match[1]), startTicks: Number(match[2]), bootId: match[3] ?? "" };
      if (await isAlive(owner)) continue;
    }
    // A name of another form was made by nobody who may be here.
    await removeTree(join(parent, name));
    removed += 1;
  }
  return removed;
}

/** Not fs.rm: a layer's tree has up to a million files, and one program removes it faster than a million callbacks. */
async function removeTree(path: string): Promise<void> {
  await runTool("rm", ["--recursive", "--force", "--one-file-system", "--", path], {
    timeoutMs: imageLimits.timeoutMs,
  });
}
