/** `belljar update`: new limits of a running container, another size of its sandbox's VM, and annotations. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { SandboxResources } from "../../sdk/index.ts";
import { collect, parseAnnotations, parseLimits } from "../container-options.ts";
import type { CommonOptions, ContextHolder } from "../context.ts";
import { parseBytes, parseCount, parseMebibytes } from "../quantities.ts";
import { addTargetAction } from "../target-command.ts";

interface UpdateOptions extends CommonOptions {
  readonly memory?: string;
  readonly cpus?: string;
  readonly pidsLimit?: string;
  readonly cpuWeight?: string;
  readonly cpusetCpus?: string;
  readonly storageSize?: string;
  readonly vmMemory?: string;
  readonly vmCpus?: string;
  readonly sharedMemory?: string;
  readonly annotation?: readonly string[];
}

export function addUpdateCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("update")
    .summary("change limits of containers while they run, give them room, and size their VM")
    .option("-m, --memory <size>", "memory of the container at most; the VM grows for it (0: no limit)")
    .option("--cpus <n>", "CPUs of the container at most, fractions allowed; the VM grows for it (0: no limit)")
    .option("--pids-limit <n>", "processes and threads at most (0 or -1: no limit)")
    .option("--cpu-weight <n>", "share of the CPUs when they are short: 1 to 10000, 100 unless told")
    .option("--cpuset-cpus <list>", "CPUs that may be used, such as 0-2,4 (empty: all)")
    .option("--storage-size <size>", "how much the container can write, more than now; also of one that is stopped")
    .option("--vm-memory <size>", "memory of the sandbox's VM")
    .option("--vm-cpus <n>", "CPUs of the sandbox's VM")
    .option("--shared-memory <size>", "size of the /dev/shm that the containers share")
    .option("--annotation <K=V>", "annotation of the sandbox", collect);
  addTargetAction<UpdateOptions>({
    command,
    holder,
    work: async ({ sandbox, container }, options) => {
      const limits = parseLimits(options);
      const resources = parseResources(options);
      const hasResources = Object.keys(resources).length > 0;
      const annotations = parseAnnotations(options.annotation ?? []);
      const hasLimits = Object.keys(limits).length > 0;
      const hasAnnotations = Object.keys(annotations).length > 0;
      const { storageSize } = options;
      if (!hasLimits && !hasResources && !hasAnnotations && storageSize === undefined) {
        throw new BelljarError("INVALID_ARGUMENT", "there is nothing to update", {
          remedy:
            "Give at least one of -m, --cpus, --cpu-weight, --cpuset-cpus, --pids-limit, --storage-size, --vm-memory, --vm-cpus, --shared-memory and --annotation.",
        });
      }
      if (hasResources) await sandbox.update(resources);
      if (storageSize !== undefined) await container.growStorage(parseBytes(storageSize, "--storage-size"));
      if (hasLimits) await container.update(limits);
      if (hasAnnotations) await sandbox.setAnnotations(annotations);
    },
  });
}

function parseResources({ vmMemory, vmCpus, sharedMemory }: UpdateOptions): SandboxResources {
  return {
    ...(vmMemory === undefined ? {} : { memoryMib: parseMebibytes(vmMemory, "--vm-memory") }),
    ...(vmCpus === undefined ? {} : { cpus: parseCount(vmCpus, "--vm-cpus", { min: 1, max: 32 }) }),
    ...(sharedMemory === undefined ? {} : { sharedMemoryBytes: parseBytes(sharedMemory, "--shared-memory") }),
  };
}
