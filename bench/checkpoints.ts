/**
 * Checkpoints of a sandbox that runs, through the daemon: how long its guest and its containers stand still, at several amounts of changed
 * memory and sizes of guest, and what lies on disk afterwards.
 */
import type { CheckpointInfo, Runtime, SandboxHandle } from "../src/sdk/index.ts";
import type { Measurement } from "./measure.ts";

const REPEATS = 20;
const FILL_PIECES = 32;

/** Memory of the guest, and what is written into it on top of what a container's start changes. */
const LOADS = {
  small: [
    { memoryMib: 256, fillMb: 1 },
    { memoryMib: 256, fillMb: 8 },
    { memoryMib: 256, fillMb: 64 },
  ],
  large: [
    { memoryMib: 1024, fillMb: 1 },
    { memoryMib: 4096, fillMb: 1 },
    { memoryMib: 1024, fillMb: 512 },
  ],
} as const;

export async function measureCheckpoints(runtime: Runtime, which: keyof typeof LOADS): Promise<Measurement[]> {
  const found: Measurement[] = [];
  for (const { memoryMib, fillMb } of LOADS[which]) {
    await using sandbox = await createFilled(runtime, memoryMib, fillMb);
    const taken: CheckpointInfo[] = [];
    const wholeMs: number[] = [];
    for (let turn = 0; turn < REPEATS; turn += 1) {
      const start = performance.now();
      taken.push(await sandbox.checkpoint());
      wholeMs.push(performance.now() - start);
      await runtime.checkpoints.remove(taken.at(-1)?.id ?? "");
    }
    const what = `checkpoint, ${memoryMib} MiB guest, ${fillMb} MB written`;
    found.push(
      { name: `${what}: guest stopped`, unit: "ms", values: taken.map(({ pauseMs }) => pauseMs) },
      { name: `${what}: containers still`, unit: "ms", values: taken.map(({ frozenMs }) => frozenMs) },
      { name: `${what}: whole call`, unit: "ms", values: wholeMs },
      { name: `${what}: pages on disk`, unit: "MB", values: taken.map(({ pagesBytes }) => pagesBytes / 1e6) },
      {
        name: `${what}: device state and disks`,
        unit: "MB",
        values: taken.map(({ devicesBytes, disksBytes }) => (devicesBytes + disksBytes) / 1e6),
      },
    );
  }
  return found;
}

/** Says who it is all the time: in a copy, the first line with the copy's name is the first that it wrote itself. */
const TALKER = 'while :; do read h < /proc/sys/kernel/hostname; echo "$h"; usleep 10000; done';

export async function createFilled(
  runtime: Runtime,
  memoryMib: number,
  fillMb: number,
  { template = true }: { readonly template?: boolean } = {},
): Promise<SandboxHandle> {
  const sandbox = await runtime.sandboxes.create({
    image: "busybox",
    memoryMib,
    template,
    container: { command: ["sh", "-c", TALKER], tmpfs: [`/fill:size=${fillMb + 32}m`] },
  });
  await sandbox.exec(["sh", "-c", fillScript(fillMb)]);
  return sandbox;
}

/** Random bytes, but the same ones again and again: a guest without acceleration makes few of them in a second. */
export function fillScript(fillMb: number): string {
  const times = Math.min(fillMb, FILL_PIECES);
  const pieceBytes = Math.round((fillMb * 1_000_000) / times);
  return `head -c ${pieceBytes} /dev/urandom > /fill/piece; i=0; while [ $i -lt ${times} ]; do cat /fill/piece; i=$((i+1)); done > /fill/data; rm /fill/piece`;
}
