/** `run` and `create` with `--template NAME`: a sandbox that goes on where another one was, and perhaps a command in it. */
import type { Command } from "commander";
import { BelljarError } from "../base/index.ts";
import { parsePort } from "../network/index.ts";
import type { Runtime, SandboxHandle } from "../sdk/index.ts";
import { attachStreams } from "./attach.ts";
import type { ContainerOptions } from "./container-options.ts";
import type { Context } from "./context.ts";
import { settleSandbox } from "./foreground.ts";
import type { SignalRelay } from "./signals.ts";
import { terminalSize } from "./terminal.ts";

export interface TemplateRunOptions extends ContainerOptions {
  readonly rm?: boolean;
  readonly detach?: boolean;
}

const OF_THE_SANDBOX = ["template", "name", "hostname", "publish", "rm", "detach", "root", "json", "logLevel"];
const OF_THE_COMMAND = ["interactive", "tty", "env", "workdir", "user", "capAdd", "capDrop"];

/** @throws BelljarError `INVALID_ARGUMENT` for an option that the template has decided, or that nothing is there for */
export function checkTemplateOptions(command: Command, args: readonly string[]): void {
  for (const option of command.options) {
    const name = option.attributeName();
    if (command.getOptionValueSource(name) !== "cli" || OF_THE_SANDBOX.includes(name)) continue;
    const isOfCommand = OF_THE_COMMAND.includes(name);
    if (isOfCommand && args.length > 0) continue;
    const why = isOfCommand ? "is of a command, and there is none" : "is as it was in the template";
    throw new BelljarError("INVALID_ARGUMENT", `--template: ${option.long ?? name} ${why}`);
  }
}

export async function startTemplate(
  runtime: Runtime,
  template: string,
  options: TemplateRunOptions,
  { signal }: SignalRelay,
): Promise<SandboxHandle> {
  const { name, hostname, publish, rm, detach } = options;
  const network = publish === undefined ? undefined : { ports: publish.flatMap(parsePort) };
  const autoRemove = rm === true && detach === true;
  return await runtime.sandboxes.create(
    { template, name, hostname, network, stopWithMain: true, autoRemove },
    { signal },
  );
}

/** The command in the sandbox's first container, or that container itself from where it goes on; answers the exit status. */
export async function runTemplate(
  runtime: Runtime,
  template: string,
  args: readonly string[],
  options: TemplateRunOptions,
  { output, environment }: Context,
  relay: SignalRelay,
): Promise<number> {
  const interactive = options.interactive === true;
  const tty = options.tty === true;
  const isDetached = options.detach === true;
  const sandbox = await startTemplate(runtime, template, options, relay);
  try {
    const child =
      args.length === 0
        ? undefined
        : await sandbox.main.spawn(args, {
            env: options.env ?? [],
            clientEnvironment: environment,
            cwd: options.workdir,
            user: options.user,
            capAdd: options.capAdd,
            capDrop: options.capDrop,
            tty,
            stdin: interactive && !isDetached,
            terminalSize: terminalSize(),
            signal: relay.signal,
            endOnAbort: !isDetached,
          });
    if (isDetached) {
      if (output.json) output.object({ id: sandbox.id });
      else output.line(sandbox.id);
      return 0;
    }
    const status =
      child === undefined ? await goOn(sandbox, relay) : await attachStreams(child, { relay, interactive, tty });
    // The user has left it alone, running.
    if (status === undefined) return 0;
    await settleSandbox(sandbox, options.rm === true);
    return status;
  } catch (error) {
    if (options.rm === true) await sandbox.delete({ force: true }).catch(() => {});
    throw error;
  }
}

async function goOn(sandbox: SandboxHandle, relay: SignalRelay): Promise<number | undefined> {
  const { tty } = await sandbox.main.info();
  const main = await sandbox.main.attach({ sinceRestore: true });
  return await attachStreams(main, { relay, interactive: false, tty });
}
