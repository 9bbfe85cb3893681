/** `belljar run`: a container in a VM of its own, its streams on ours, its exit status ours. */
import { readFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { SandboxCreateConfig } from "../../sdk/index.ts";
import { attachStreams } from "../attach.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { parseBytes, parseCount, parseMebibytes } from "../quantities.ts";
import { SignalRelay } from "../signals.ts";
import { checkTerminal, terminalSize } from "../terminal.ts";

interface RunOptions extends CommonOptions {
  readonly rm?: boolean;
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly name?: string;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly memory?: string;
  readonly cpus?: string;
  readonly accel?: "auto" | "kvm" | "tcg";
  readonly entrypoint?: string;
  readonly hostname?: string;
  readonly network?: string;
  readonly readOnly?: boolean;
  readonly capAdd?: readonly string[];
  readonly capDrop?: readonly string[];
  readonly securityOpt?: readonly string[];
  readonly pidsLimit?: string;
  readonly shmSize?: string;
  readonly storageSize?: string;
  readonly tmpfs?: readonly string[];
  readonly annotation?: readonly string[];
}

const collect = (value: string, previous: readonly string[] = []): readonly string[] => [...previous, value];

export function addRunCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("run")
    .summary("run a command in a new container in a VM of its own")
    .description(
      "Boots a small virtual machine, runs one container in it, connects its streams, and removes both when the command " +
        "ends. The exit status is the command's own; 125 when Belljar failed, 126 when the command cannot be executed, " +
        "127 when it does not exist.",
    )
    .argument("<image>", "name of an image (see `belljar image ls`)")
    .argument("[command...]", "command and arguments; the image's own when left out")
    .option("--rm", "remove the container when it ends (always so for now)")
    .option("-i, --interactive", "connect standard input")
    .option("-t, --tty", "give the container a terminal")
    .option("--name <name>", "name of the sandbox")
    .option("-e, --env <K=V>", "environment variable; K alone takes the value from here", collect)
    .option("-w, --workdir <dir>", "working directory")
    .option("-u, --user <user[:group]>", "user by name or number, from the container's own files")
    .option("-m, --memory <size>", "memory of the VM (256m)")
    .option("--cpus <n>", "CPUs of the VM (1)")
    .addOption(new Option("--accel <how>", "acceleration").choices(["auto", "kvm", "tcg"]).default("auto"))
    .option("--entrypoint <program>", "instead of the image's entrypoint; an empty string removes it")
    .option("--hostname <name>", "host name (the sandbox's id)")
    .addOption(new Option("--network <mode>", "network of the sandbox: loopback only for now").choices(["none"]))
    .option("--read-only", "read-only root file system")
    .option("--cap-add <cap>", "add a capability", collect)
    .option("--cap-drop <cap>", "drop a capability, or ALL", collect)
    .option("--security-opt <opt>", "seccomp=FILE, seccomp=unconfined, no-new-privileges", collect)
    .option("--pids-limit <n>", "processes and threads at most")
    .option("--shm-size <size>", "size of /dev/shm (64m)")
    .option("--storage-size <size>", "size of the writable disk (10g, sparse)")
    .option("--tmpfs <dir[:opts]>", "mount a tmpfs", collect)
    .option("--annotation <K=V>", "annotation of the container", collect)
    .passThroughOptions();
  withCommonOptions(command).action(async (image: string, args: string[], options: RunOptions) => {
    setStatus(await run(image, args, options, holder));
  });
}

async function run(
  image: string,
  args: readonly string[],
  options: RunOptions,
  holder: ContextHolder,
): Promise<number> {
  const interactive = options.interactive === true;
  const tty = options.tty === true;
  checkTerminal({ interactive, tty });
  const context = createContext(options, holder);
  using relay = new SignalRelay();
  await using runtime = await context.openRuntime(relay.signal);
  const security = await readSecurityOptions(options.securityOpt ?? []);
  const config = sandboxConfig(image, args, options, security, context.environment);
  await using sandbox = await runtime.sandboxes.create(config, {
    signal: relay.signal,
    progress: (step) => context.output.progress(step),
  });
  context.output.endProgress();
  const main = await sandbox.start({ signal: relay.signal, stdin: interactive, terminalSize: terminalSize() });
  return await attachStreams(main, { relay, interactive, tty });
}

function sandboxConfig(
  image: string,
  args: readonly string[],
  options: RunOptions,
  security: SecurityOptions,
  environment: NodeJS.ProcessEnv,
): SandboxCreateConfig {
  const range = { min: 1, max: 4_194_304 };
  return {
    image,
    name: options.name,
    memoryMib: options.memory === undefined ? undefined : parseMebibytes(options.memory, "--memory"),
    cpus: options.cpus === undefined ? undefined : parseCount(options.cpus, "--cpus", { min: 1, max: 32 }),
    acceleration: options.accel,
    hostname: options.hostname,
    container: {
      command: args.length === 0 ? undefined : args,
      entrypoint: options.entrypoint === undefined ? undefined : options.entrypoint === "" ? [] : [options.entrypoint],
      env: options.env ?? [],
      clientEnvironment: environment,
      workingDir: options.workdir,
      user: options.user,
      tty: options.tty === true,
      readOnly: options.readOnly === true,
      capAdd: options.capAdd ?? [],
      capDrop: options.capDrop ?? [],
      ...security,
      pidsLimit: options.pidsLimit === undefined ? undefined : parseCount(options.pidsLimit, "--pids-limit", range),
      shmBytes: options.shmSize === undefined ? undefined : parseBytes(options.shmSize, "--shm-size"),
      tmpfs: options.tmpfs ?? [],
      annotations: parseAnnotations(options.annotation ?? []),
    },
    storageBytes: options.storageSize === undefined ? undefined : parseBytes(options.storageSize, "--storage-size"),
  };
}

type SecurityOptions = Pick<SandboxCreateConfig["container"], "securityOptions" | "seccompProfile">;

/** `seccomp=FILE` is read here; the rest is for the container to understand. */
async function readSecurityOptions(options: readonly string[]): Promise<SecurityOptions> {
  const securityOptions: string[] = [];
  let seccompProfile: string | undefined;
  for (const option of options) {
    const path = /^seccomp[=:](?!unconfined$)(.+)$/.exec(option)?.[1];
    if (path === undefined) {
      securityOptions.push(option);
      continue;
    }
    seccompProfile = await readFile(path, "utf8").catch((cause: unknown) => {
      throw new BelljarError("INVALID_ARGUMENT", `the seccomp profile ${path} cannot be read`, { cause });
    });
  }
  return { securityOptions, seccompProfile };
}

function parseAnnotations(pairs: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) {
        throw new BelljarError("INVALID_ARGUMENT", `--annotation ${JSON.stringify(pair)} is not of the form K=V`);
      }
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
