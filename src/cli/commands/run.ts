/** `belljar run`: a container in a VM of its own, its streams on ours, its exit status ours. */
import type { Command } from "commander";
import type { ContainerHandle, Runtime, SandboxHandle } from "../../sdk/index.ts";
import {
  addContainerOptions,
  type ContainerOptions,
  furtherContainerConfig,
  needImage,
  sandboxConfig,
} from "../container-options.ts";
import { type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { runInForeground, settleSandbox } from "../foreground.ts";
import { SignalRelay } from "../signals.ts";
import { splitTarget } from "../target.ts";
import { checkTemplateOptions, runTemplate } from "../template-run.ts";
import { checkTerminal, terminalSize } from "../terminal.ts";

interface RunOptions extends ContainerOptions {
  readonly rm?: boolean;
  readonly detach?: boolean;
}

interface Started {
  readonly sandbox: SandboxHandle;
  readonly container: ContainerHandle;
}

export function addRunCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("run")
    .summary("run a command in a new container in a VM of its own")
    .description(
      "Boots a small virtual machine, runs one container in it, and connects its streams. The exit status is the " +
        "command's own; 125 when Belljar failed, 126 when the command cannot be executed, 127 when it does not exist. " +
        "When the command has ended the VM is gone, and the stopped sandbox stays until `belljar rm`.",
    )
    .option("-d, --detach", "leave it running, and print the sandbox's id")
    .option("--rm", "delete the sandbox when the command ends");
  withCommonOptions(addContainerOptions(command)).action(
    async (image: string | undefined, args: string[], options: RunOptions) => {
      const words = image === undefined ? args : [image, ...args];
      const { template } = options;
      if (typeof template !== "string") setStatus(await run(needImage(image), args, options, holder));
      else {
        checkTemplateOptions(command, words);
        const context = createContext(options, holder);
        if (options.detach !== true)
          checkTerminal({ interactive: options.interactive === true, tty: options.tty === true });
        using relay = new SignalRelay();
        await using runtime = await context.connect(relay.signal);
        setStatus(await runTemplate(runtime, template, words, options, context, relay));
      }
    },
  );
}

async function run(
  image: string,
  args: readonly string[],
  options: RunOptions,
  holder: ContextHolder,
): Promise<number> {
  const interactive = options.interactive === true;
  const tty = options.tty === true;
  const detach = options.detach === true;
  if (!detach) checkTerminal({ interactive, tty });
  const context = createContext(options, holder);
  using relay = new SignalRelay();
  await using runtime = await context.connect(relay.signal);
  const { sandbox, container } = await start(runtime, image, args, options, context, relay);
  const isFurther = options.sandbox !== undefined;
  if (detach) {
    const id = isFurther ? container.id : sandbox.id;
    if (context.output.json) context.output.object({ id });
    else context.output.line(id);
    return 0;
  }
  let status: number | undefined;
  try {
    status = await runInForeground(container, { relay, interactive, tty });
  } catch (error) {
    if (options.rm === true) await remove(sandbox, container, isFurther);
    throw error;
  }
  // The user has left it alone, running.
  if (status === undefined) return 0;
  if (!isFurther) await settleSandbox(sandbox, options.rm === true);
  else if (options.rm === true) await remove(sandbox, container, true);
  return status;
}

async function start(
  runtime: Runtime,
  image: string,
  args: readonly string[],
  options: RunOptions,
  context: Context,
  { signal }: SignalRelay,
): Promise<Started> {
  const { environment, output } = context;
  if (options.sandbox !== undefined) {
    const config = await furtherContainerConfig(image, args, options, environment);
    const sandbox = await runtime.sandboxes.get(splitTarget(options.sandbox).sandboxName);
    const container = await sandbox.containers.create(config, { signal });
    try {
      await container.start({ signal, terminalSize: terminalSize() });
    } catch (error) {
      await container.delete({ force: true }).catch(() => {});
      throw error;
    }
    return { sandbox, container };
  }
  const config = await sandboxConfig(image, args, options, environment);
  const sandbox = await runtime.sandboxes.create(
    { ...config, stopWithMain: true, autoRemove: options.rm === true && options.detach === true },
    { signal, progress: (step) => output.progress(step) },
  );
  output.endProgress();
  return { sandbox, container: sandbox.main };
}

/** For the way out after a failure, which is what is told. */
async function remove(sandbox: SandboxHandle, container: ContainerHandle, isFurther: boolean): Promise<void> {
  await (isFurther ? container : sandbox).delete({ force: true }).catch(() => {});
}
