/** The files of one VM in its run directory. All of them are ours, and all are removed when the VM has ended. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError } from "../../base/index.ts";

export interface RunFiles {
  readonly agentSocket: string;
  readonly wakeSocket: string;
  readonly consoleSocket: string;
  readonly qmpSocket: string;
  /** Exists only while device state is being loaded. */
  readonly incomingSocket: string;
  readonly pidFile: string;
  readonly log: string;
}

/** `sun_path` of a Unix socket address, without the closing NUL. */
const SOCKET_PATH_MAX_BYTES = 107;

/** @throws BelljarError `INVALID_ARGUMENT` when a socket in this directory would have too long a path. */
export function runFiles(runDir: string): RunFiles {
  const files: RunFiles = {
    agentSocket: join(runDir, "agent.sock"),
    wakeSocket: join(runDir, "wake.sock"),
    consoleSocket: join(runDir, "console.sock"),
    qmpSocket: join(runDir, "qmp.sock"),
    incomingSocket: join(runDir, "incoming.sock"),
    pidFile: join(runDir, "vmm.pid"),
    log: join(runDir, "vmm.log"),
  };
  const longest = Math.max(...Object.values(files).map((path: string) => Buffer.byteLength(path)));
  if (longest > SOCKET_PATH_MAX_BYTES) {
    throw new BelljarError("INVALID_ARGUMENT", `the path ${runDir} is too long to hold Unix sockets`, {
      facts: { runDir, longestBytes: longest, maxBytes: SOCKET_PATH_MAX_BYTES },
      remedy: "Name a shorter directory for sockets with BELLJAR_RUN.",
    });
  }
  return files;
}

export async function removeRunFiles(files: RunFiles): Promise<void> {
  await Promise.all(Object.values(files).map((path: string) => rm(path, { force: true })));
}
