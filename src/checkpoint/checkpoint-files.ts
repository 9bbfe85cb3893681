/** The files of one checkpoint: written beside where it will be, linked where they are somebody else's too, and read again. */
import { copyFile, mkdir, open, readdir, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BelljarError, hasErrno } from "../base/index.ts";
import { linkInto } from "../container/index.ts";
import { syncDirectory } from "../store/index.ts";
import { checkpointDigest } from "./checkpoint-digest.ts";
import { readImage, writeImage } from "./checkpoint-image.ts";
import type { CheckpointDisk, CheckpointFile, CheckpointLog, CheckpointState } from "./checkpoint-state.ts";
import type { FileDigests } from "./file-digests.ts";
import { countPages, decodePages, encodePages, PAGE_BYTES } from "./memory/index.ts";
import type { Snapshot } from "./snapshot.ts";

export const files = {
  config: "config.json",
  image: "checkpoint.img",
  pages: "pages.img",
  pagesMeta: "pages_meta.img",
  base: "base.img",
} as const;

/** What somebody else's files are linked as: done while nobody can take them away. */
export interface Linked {
  readonly disks: readonly CheckpointDisk[];
  readonly logs: readonly CheckpointLog[];
}

export async function linkFiles(dir: string, { disks, logs, memory }: Snapshot): Promise<Linked> {
  if (memory !== undefined) await linkAs(memory.path, join(dir, files.base));
  for (const disk of disks) for (const path of disk.files) await linkInto(path, join(dir, "disks"));
  const kept: CheckpointLog[] = [];
  for (const { containerId, starts, files: pieces } of logs) {
    const target = join(dir, "logs", containerId, String(starts));
    await mkdir(target, { recursive: true, mode: 0o700 });
    const names: string[] = [];
    for (const { path, sizeBytes } of pieces) {
      if (await copyBeginning(path, join(target, basename(path)), sizeBytes)) names.push(basename(path));
    }
    kept.push({ containerId, starts, files: names });
  }
  return {
    disks: disks.map(({ serial, files: paths }) => ({ serial, files: paths.map((path) => basename(path)) })),
    logs: kept,
  };
}

/** Everything else but the manifest; each file is on disk then. Answers what the manifest says of them. */
export async function writeFiles(
  dir: string,
  snapshot: Snapshot,
  linked: Linked,
  about: unknown,
  digests: FileDigests,
): Promise<Pick<CheckpointState, "devicesAt" | "devicesBytes" | "files">> {
  const devices = await writeImage(join(dir, files.image), snapshot.state, snapshot.devices.path);
  await rm(snapshot.devices.path, { force: true });
  await writeFile(join(dir, files.pagesMeta), encodePages(snapshot.pages), { flag: "wx", mode: 0o600 });
  await writeFile(join(dir, files.config), `${JSON.stringify(about, null, 2)}\n`, { flag: "wx", mode: 0o600 });
  if (snapshot.pagesPath !== join(dir, files.pages)) await rename(snapshot.pagesPath, join(dir, files.pages));
  const names: string[] = [files.config, files.image, files.pages, files.pagesMeta];
  if (snapshot.memory !== undefined) names.push(files.base);
  names.push(...new Set(linked.disks.flatMap((disk) => disk.files.map((name) => `disks/${name}`))));
  for (const { containerId, starts, files: pieces } of linked.logs) {
    names.push(...pieces.map((name) => `logs/${containerId}/${starts}/${name}`));
  }
  const written: CheckpointFile[] = [];
  for (const name of names) {
    const path = join(dir, name);
    await sync(path);
    written.push({ path: name, sizeBytes: (await stat(path)).size, digest: await digests.digest(path) });
  }
  for (const directory of new Set(["", ...names.map((name) => dirname(name))]))
    await syncDirectory(join(dir, directory));
  return { ...devices, files: written };
}

/**
 * @param depth `sizes` looks whether all files are there, `digests` reads them
 * @throws BelljarError `CHECKPOINT_INCOMPLETE`, `CHECKPOINT_CORRUPT`
 */
export async function checkFiles(
  dir: string,
  state: CheckpointState,
  depth: "sizes" | FileDigests,
  signal?: AbortSignal,
): Promise<void> {
  for (const { path: name, sizeBytes, digest } of state.files) {
    const path = join(dir, name);
    const found = await stat(path).then(
      ({ size }) => size,
      () => undefined,
    );
    if (found !== sizeBytes) {
      const what = found === undefined ? "is missing" : `has ${found} bytes, not ${sizeBytes}`;
      throw new BelljarError("CHECKPOINT_INCOMPLETE", `the checkpoint ${state.name} is damaged: ${name} ${what}`, {
        facts: { path, expectedBytes: sizeBytes, ...(found === undefined ? {} : { foundBytes: found }) },
      });
    }
    if (depth === "sizes" || (await depth.digest(path, signal)) === digest) continue;
    throw new BelljarError(
      "CHECKPOINT_CORRUPT",
      `the checkpoint ${state.name} is damaged: ${name} is not what was written`,
      {
        facts: { path, expected: digest },
      },
    );
  }
}

/** @throws BelljarError `CHECKPOINT_CORRUPT`, `CHECKPOINT_INCOMPLETE`, `CHECKPOINT_MISMATCH` */
export async function readSnapshot(dir: string, checkpoint: CheckpointState): Promise<Snapshot> {
  const state = await readImage(join(dir, files.image));
  const metaPath = join(dir, files.pagesMeta);
  const pages = decodePages(await readSmall(metaPath), metaPath);
  const wanted = countPages(pages) * PAGE_BYTES;
  const found = checkpoint.files.find(({ path }) => path === files.pages)?.sizeBytes;
  const isPlain = checkpoint.compression === undefined;
  if ((isPlain && found !== wanted) || state.vm === undefined || state.agentInstance === undefined) {
    throw new BelljarError("CHECKPOINT_CORRUPT", `the files of the checkpoint ${checkpoint.name} do not fit together`, {
      facts: { dir },
    });
  }
  const hasBase = checkpoint.files.some(({ path }) => path === files.base);
  return {
    stoppedAtMs: checkpoint.stoppedAtMs,
    state,
    memory: hasBase ? { path: join(dir, files.base), template: baseOf(checkpoint) } : undefined,
    pages,
    pagesPath: join(dir, files.pages),
    pagesAt: 0,
    compression: checkpoint.compression,
    devices: { path: join(dir, files.image), at: checkpoint.devicesAt },
    disks: checkpoint.disks.map(({ serial, files: names }) => ({
      serial,
      files: names.map((name) => join(dir, "disks", name)),
    })),
    layers: await listLayers(join(dir, "layers")),
    logs: checkpoint.logs.map(({ containerId, starts, files: names }) => ({
      containerId,
      starts,
      files: names.map((name) => ({
        path: join(dir, "logs", containerId, String(starts), name),
        sizeBytes:
          checkpoint.files.find(({ path }) => path === `logs/${containerId}/${starts}/${name}`)?.sizeBytes ?? 0,
      })),
    })),
  };
}

/** Of a file that only ever grows; false when it has gone by now. */
export async function copyBeginning(from: string, to: string, sizeBytes: number): Promise<boolean> {
  try {
    await copyFile(from, to);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return false;
    throw error;
  }
  await truncate(to, sizeBytes);
  return true;
}

/** What the memory below is the memory of. */
function baseOf(checkpoint: CheckpointState): string | undefined {
  return checkpoint.isTemplate === true ? checkpointDigest(checkpoint) : checkpoint.template;
}

async function listLayers(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir)).map((name) => join(dir, name));
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}

async function linkAs(from: string, to: string): Promise<void> {
  await linkInto(from, dirname(to));
  if (basename(from) !== basename(to)) await rename(join(dirname(to), basename(from)), to);
}

async function readSmall(path: string): Promise<Buffer> {
  const file = await open(path, "r").catch((cause: unknown) => {
    throw new BelljarError("CHECKPOINT_INCOMPLETE", `${path} cannot be read`, { facts: { path }, cause });
  });
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

async function sync(path: string): Promise<void> {
  await using file = await open(path, "r");
  await file.sync();
}
