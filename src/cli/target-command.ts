/** A command that does one thing to each sandbox or container it is given, and prints what it was given for each that worked. */
import type { Command } from "commander";
import { checkName } from "../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "./context.ts";
import { SignalRelay } from "./signals.ts";
import { forEachTarget, type Target } from "./target.ts";

export interface TargetCommand<O extends CommonOptions> {
  readonly command: Command;
  readonly holder: ContextHolder;
  readonly work: (target: Target, options: O, signal: AbortSignal) => Promise<void>;
  /** There is no container that it could be done to. */
  readonly onlySandboxes?: boolean | undefined;
}

export function addTargetAction<O extends CommonOptions>(wanted: TargetCommand<O>): void {
  const { command, holder, work, onlySandboxes = false } = wanted;
  command.argument(
    onlySandboxes ? "<sandbox...>" : "<sandbox[/container]...>",
    "by id, the beginning of an id, or name",
  );
  withCommonOptions(command).action(async (names: string[], options: O) => {
    const context = createContext(options, holder);
    if (onlySandboxes) for (const name of names) checkName(name, "sandbox");
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    await forEachTarget(runtime, names, async (target, name) => {
      await work(target, options, relay.signal);
      if (context.output.json)
        context.output.object({ name, id: target.isContainer ? target.container.id : target.sandbox.id });
      else context.output.line(name);
    });
  });
}
