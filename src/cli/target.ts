/** `SANDBOX[/CONTAINER]` as users type it: checked before anything is asked, found by id, beginning of an id, or name. */
import { checkName } from "../base/index.ts";
import type { ContainerHandle, Runtime, SandboxHandle } from "../sdk/index.ts";
import { forEachName } from "./for-each.ts";
import type { Output } from "./output.ts";

export interface Target {
  readonly sandbox: SandboxHandle;
  /** The sandbox's first one unless another was named. */
  readonly container: ContainerHandle;
  /** A container was named, so it alone is meant. */
  readonly isContainer: boolean;
}

/** @throws BelljarError `INVALID_ARGUMENT`, `SANDBOX_NOT_FOUND`, `SANDBOX_AMBIGUOUS`, `CONTAINER_NOT_FOUND` */
export async function findTarget(runtime: Runtime, text: string): Promise<Target> {
  const { sandboxName, containerName } = splitTarget(text);
  const sandbox = await runtime.sandboxes.get(sandboxName);
  if (containerName === undefined) return { sandbox, container: sandbox.main, isContainer: false };
  return { sandbox, container: await sandbox.containers.get(containerName), isContainer: true };
}

export function splitTarget(text: string): {
  readonly sandboxName: string;
  readonly containerName: string | undefined;
} {
  const at = text.indexOf("/");
  const sandboxName = checkName(at === -1 ? text : text.slice(0, at), "sandbox");
  return { sandboxName, containerName: at === -1 ? undefined : checkName(text.slice(at + 1), "container") };
}

/** A name that is unsafe is refused before any of the others is touched. */
export async function forEachTarget(
  runtime: Runtime,
  output: Output,
  texts: readonly string[],
  work: (target: Target, text: string) => Promise<void>,
): Promise<void> {
  for (const text of texts) splitTarget(text);
  await forEachName(texts, output, async (text) => work(await findTarget(runtime, text), text));
}
