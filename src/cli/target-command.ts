/** A command that does one thing to each sandbox or container it is given, and prints what it was given for each that worked. */
import type { Command } from "commander";
import { BelljarError, checkName } from "../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "./context.ts";
import { forEachName } from "./for-each.ts";
import { SignalRelay } from "./signals.ts";
import { findTarget, splitTarget, type Target } from "./target.ts";

export interface TargetCommand<O extends CommonOptions> {
  readonly command: Command;
  readonly holder: ContextHolder;
  readonly work: (target: Target, options: O, signal: AbortSignal) => Promise<void>;
  /** There is no container that it could be done to. */
  readonly onlySandboxes?: boolean | undefined;
  /** What does not exist is passed over in silence. */
  readonly mayBeMissing?: ((options: O) => boolean) | undefined;
}

export function addTargetAction<O extends CommonOptions>(wanted: TargetCommand<O>): void {
  const { command, holder, work, onlySandboxes = false, mayBeMissing = () => false } = wanted;
  command.argument(
    onlySandboxes ? "<sandbox...>" : "<sandbox[/container]...>",
    "by id, the beginning of an id, or name",
  );
  withCommonOptions(command).action(async (names: string[], options: O) => {
    const context = createContext(options, holder);
    for (const name of names) onlySandboxes ? checkName(name, "sandbox") : splitTarget(name);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    await forEachName(names, context.output, async (name) => {
      const target = await findTarget(runtime, name).catch((error: unknown) => {
        if (mayBeMissing(options) && isMissing(error)) return undefined;
        throw error;
      });
      if (target === undefined) return;
      await work(target, options, relay.signal);
      if (context.output.json)
        context.output.object({ name, id: target.isContainer ? target.container.id : target.sandbox.id });
      else context.output.line(name);
    });
  });
}

function isMissing(error: unknown): boolean {
  return ["SANDBOX_NOT_FOUND", "CONTAINER_NOT_FOUND"].includes(BelljarError.from(error).reason);
}
