/**
 * What the KVM probe found out, kept on disk for as long as nothing it depends on has changed. It is a cache: a file that
 * cannot be read is as good as none.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { cpus, release } from "node:os";
import { join } from "node:path";
import { BelljarError, hasErrno, parseJson } from "../../base/index.ts";
import { writeFileDurably } from "../../store/index.ts";

export interface ProbeAnswer {
  readonly works: boolean;
  readonly explanation: string;
}

/** Raised when the probe itself changes what it would answer. */
const PROBE_REVISION = 1;

interface Surroundings {
  readonly revision: number;
  readonly hostKernel: string;
  readonly cpu: string;
  readonly vmm: string;
}

export async function recall(cacheDir: string, vmm: string): Promise<ProbeAnswer | undefined> {
  try {
    const kept = parseJson(await readFile(fileIn(cacheDir), "utf8"), "acceleration.json", "STATE_CORRUPT");
    const now = surroundings(vmm);
    const before = kept.field("surroundings");
    const same =
      before.field("revision").integer() === now.revision &&
      before.field("hostKernel").string() === now.hostKernel &&
      before.field("cpu").string() === now.cpu &&
      before.field("vmm").string() === now.vmm;
    const works = kept.field("works").boolean();
    // "No" is believed until the host starts anew only: a changed setting of its firmware is seen then at the latest.
    if (!same || (!works && kept.field("bootId").string() !== (await bootId()))) return undefined;
    return { works, explanation: kept.field("explanation").string() };
  } catch (error) {
    if (hasErrno(error, "ENOENT") || (error instanceof BelljarError && error.reason === "STATE_CORRUPT"))
      return undefined;
    throw error;
  }
}

export async function remember(cacheDir: string, vmm: string, answer: ProbeAnswer): Promise<void> {
  await mkdir(cacheDir, { recursive: true, mode: 0o700 });
  const { works, explanation } = answer;
  const kept = { surroundings: surroundings(vmm), bootId: await bootId(), works, explanation };
  await writeFileDurably(fileIn(cacheDir), `${JSON.stringify(kept, null, 2)}\n`);
}

export async function forget(cacheDir: string): Promise<void> {
  await rm(fileIn(cacheDir), { force: true });
}

function fileIn(cacheDir: string): string {
  return join(cacheDir, "acceleration.json");
}

function surroundings(vmm: string): Surroundings {
  return { revision: PROBE_REVISION, hostKernel: release(), cpu: cpus()[0]?.model ?? "unknown", vmm };
}

async function bootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}
