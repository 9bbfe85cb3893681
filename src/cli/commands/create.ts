/** `belljar create`: a sandbox with a container that waits for `start`. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import {
  addContainerOptions,
  type ContainerOptions,
  furtherContainerConfig,
  needImage,
  sandboxConfig,
} from "../container-options.ts";
import { type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { SignalRelay } from "../signals.ts";
import { splitTarget } from "../target.ts";
import { checkTemplateOptions, startTemplate } from "../template-run.ts";

export function addCreateCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("create")
    .summary("make a container without starting it, and print the id")
    .description(
      "With --sandbox the container is added to a sandbox that is there, and its own id is printed. With --template the sandbox " +
        "runs at once, from where the template was taken.",
    );
  withCommonOptions(addContainerOptions(command)).action(
    async (image: string | undefined, args: string[], options: ContainerOptions) => {
      const { template } = options;
      if (typeof template === "string") checkTemplateOptions(command, []);
      const context = createContext(options, holder);
      using relay = new SignalRelay();
      await using runtime = await context.connect(relay.signal);
      const { signal } = relay;
      let id: string;
      if (typeof template === "string") {
        if (image !== undefined) throw noCommand();
        ({ id } = await startTemplate(runtime, template, options, relay));
      } else if (options.sandbox === undefined) {
        const config = await sandboxConfig(needImage(image), args, options, context.environment);
        const progress = (step: string): void => context.output.progress(step);
        ({ id } = await runtime.sandboxes.create(
          { ...config, stopWithMain: true },
          { signal, start: false, progress },
        ));
        context.output.endProgress();
      } else {
        const config = await furtherContainerConfig(needImage(image), args, options, context.environment);
        const sandbox = await runtime.sandboxes.get(splitTarget(options.sandbox).sandboxName);
        ({ id } = await sandbox.containers.create(config, { signal }));
      }
      if (context.output.json) context.output.object({ id });
      else context.output.line(id);
    },
  );
}

function noCommand(): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", "`create --template` takes no image and no command", {
    remedy: "`belljar run --template NAME COMMAND` runs one.",
  });
}
