/** `belljar update`: new limits of a running container, and annotations of its sandbox. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import { collect, parseAnnotations, parseLimits } from "../container-options.ts";
import type { CommonOptions, ContextHolder } from "../context.ts";
import { parseBytes } from "../quantities.ts";
import { addTargetAction } from "../target-command.ts";

interface UpdateOptions extends CommonOptions {
  readonly memory?: string;
  readonly cpus?: string;
  readonly pidsLimit?: string;
  readonly cpuWeight?: string;
  readonly cpusetCpus?: string;
  readonly storageSize?: string;
  readonly annotation?: readonly string[];
}

export function addUpdateCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("update")
    .summary("change limits of containers while they run, and give them room")
    .option("-m, --memory <size>", "memory at most, within the VM's")
    .option("--cpus <n>", "CPUs at most, fractions allowed, within the VM's")
    .option("--pids-limit <n>", "processes and threads at most")
    .option("--cpu-weight <n>", "share of the CPUs when they are short: 1 to 10000, 100 unless told")
    .option("--cpuset-cpus <list>", "CPUs that may be used, such as 0-2,4")
    .option("--storage-size <size>", "how much the container can write, more than now; also of one that is stopped")
    .option("--annotation <K=V>", "annotation of the sandbox", collect);
  addTargetAction<UpdateOptions>({
    command,
    holder,
    work: async ({ sandbox, container }, options) => {
      const limits = parseLimits(options);
      const annotations = parseAnnotations(options.annotation ?? []);
      const hasLimits = Object.keys(limits).length > 0;
      const hasAnnotations = Object.keys(annotations).length > 0;
      const { storageSize } = options;
      if (!hasLimits && !hasAnnotations && storageSize === undefined) {
        throw new BelljarError("INVALID_ARGUMENT", "there is nothing to update", {
          remedy:
            "Give at least one of -m, --cpus, --cpu-weight, --cpuset-cpus, --pids-limit, --storage-size and --annotation.",
        });
      }
      if (storageSize !== undefined) await container.growStorage(parseBytes(storageSize, "--storage-size"));
      if (hasLimits) await container.update(limits);
      if (hasAnnotations) await sandbox.setAnnotations(annotations);
    },
  });
}
