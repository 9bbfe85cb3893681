/** A container's first process in the foreground: its streams on ours, its exit status ours, until it ends or is left alone. */
import type { ContainerHandle, SandboxHandle } from "../sdk/index.ts";
import { attachStreams } from "./attach.ts";
import type { SignalRelay } from "./signals.ts";

export interface ForegroundOptions {
  readonly relay: SignalRelay;
  readonly interactive: boolean;
  readonly tty: boolean;
  /** Where reading begins; at the beginning unless told. */
  readonly offsets?: { readonly stdoutOffset: bigint; readonly stderrOffset: bigint } | undefined;
}

/** Exit status; undefined when the user left with the detach keys. */
export async function runInForeground(
  container: ContainerHandle,
  { relay, interactive, tty, offsets }: ForegroundOptions,
): Promise<number | undefined> {
  const main = await container.attach(offsets ?? {});
  return await attachStreams(main, { relay, interactive, tty });
}

/** Once the first process has ended the sandbox follows; whoever comes next finds it stopped. */
export async function settleSandbox(sandbox: SandboxHandle, remove: boolean): Promise<void> {
  if (remove) await sandbox.delete({ force: true });
  else await sandbox.stop({ timeoutMs: 0 });
}
