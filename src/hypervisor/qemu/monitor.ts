/** The QMP commands that Belljar uses, with their answers decoded. Anything else about QMP is in `qmp.ts`. */
import type { QmpClient, QmpOptions } from "./qmp.ts";

export interface RunStatus {
  readonly running: boolean;
  /** QEMU's own word: `running`, `paused`, `prelaunch`, `internal-error`, ... */
  readonly word: string;
}

export async function queryStatus(qmp: QmpClient, options: QmpOptions = {}): Promise<RunStatus> {
  const answer = await qmp.execute("query-status", {}, options);
  return { running: answer.field("running").boolean(), word: answer.field("status").string({ maxLength: 64 }) };
}

export async function queryVcpuThreads(qmp: QmpClient): Promise<number[]> {
  const answer = await qmp.execute("query-cpus-fast");
  return answer.array((cpu) => cpu.field("thread-id").integer({ min: 1 }));
}

/** Why the VM's state cannot be saved; empty when it can. */
export async function queryBlockedReasons(qmp: QmpClient): Promise<string[]> {
  const answer = await qmp.execute("query-migrate");
  return answer.field("blocked-reasons").optional((field) => field.array((reason) => reason.string())) ?? [];
}
