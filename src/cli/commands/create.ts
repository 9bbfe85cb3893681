/** `belljar create`: a sandbox with a container that waits for `start`. */
import type { Command } from "commander";
import {
  addContainerOptions,
  type ContainerOptions,
  furtherContainerConfig,
  sandboxConfig,
} from "../container-options.ts";
import { type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { SignalRelay } from "../signals.ts";
import { splitTarget } from "../target.ts";

export function addCreateCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("create")
    .summary("make a container without starting it, and print the id")
    .description("With --sandbox the container is added to a sandbox that is there, and its own id is printed.");
  withCommonOptions(addContainerOptions(command)).action(
    async (image: string, args: string[], options: ContainerOptions) => {
      const context = createContext(options, holder);
      using relay = new SignalRelay();
      await using runtime = await context.connect(relay.signal);
      const { signal } = relay;
      let id: string;
      if (options.sandbox === undefined) {
        const config = await sandboxConfig(image, args, options, context.environment);
        const progress = (step: string): void => context.output.progress(step);
        ({ id } = await runtime.sandboxes.create(
          { ...config, stopWithMain: true },
          { signal, start: false, progress },
        ));
        context.output.endProgress();
      } else {
        const config = await furtherContainerConfig(image, args, options, context.environment);
        const sandbox = await runtime.sandboxes.get(splitTarget(options.sandbox).sandboxName);
        ({ id } = await sandbox.containers.create(config, { signal }));
      }
      if (context.output.json) context.output.object({ id });
      else context.output.line(id);
    },
  );
}
