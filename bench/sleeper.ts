/** The sandbox that most figures are taken of, and its stream of output. */
import type { Runtime, SandboxHandle } from "../src/sdk/index.ts";
import { time } from "./measure.ts";

/** Its container sleeps for longer than any benchmark takes. */
export function createSleeper(runtime: Runtime, template = true): Promise<SandboxHandle> {
  return runtime.sandboxes.create({ image: "busybox", template, container: { command: ["sleep", "36000"] } });
}

/** Megabytes of a process's standard output that arrive in a second, its start included. */
export async function outputMbPerSecond(sandbox: SandboxHandle, bytes: number): Promise<number> {
  const tookMs = await time(async () => {
    const child = await sandbox.spawn(["head", "-c", String(bytes), "/dev/zero"]);
    let received = 0;
    for await (const chunk of child.stdout) received += chunk.length;
    await child.status;
    if (received !== bytes) throw new Error(`${received} bytes came of ${bytes}`);
  });
  return megabytesPerSecond(bytes, tookMs);
}

export function megabytesPerSecond(bytes: number, tookMs: number): number {
  return bytes / 1e6 / (tookMs / 1000);
}
