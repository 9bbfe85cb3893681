/** Templates for runtimes that tests put together themselves: shared by a whole run of the tests, as its guest image is. */
import { connectAgent } from "../../src/agent-client/index.ts";
import { silentLog, systemClock } from "../../src/base/index.ts";
import { Templates } from "../../src/checkpoint/index.ts";
import { createQemu } from "../../src/hypervisor/index.ts";
import { resolvePaths } from "../../src/sdk/paths.ts";
import { acquireLock, systemDisk } from "../../src/store/index.ts";

export function sharedTemplates(rootDir: string, runDir: string): Templates {
  const { templates } = resolvePaths({ root: rootDir }, process.env, process.getuid?.() ?? 0);
  return new Templates({
    hypervisor: createQemu({ log: silentLog }),
    connectAgent,
    dir: templates,
    runDir,
    disk: systemDisk,
    lock: acquireLock,
    clock: systemClock,
    log: silentLog,
  });
}
