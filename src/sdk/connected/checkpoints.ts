/** The checkpoints of a root behind the daemon. */
import { fromCheckpointInfo, fromRestoreReport, fromSandboxInfo, toRestoreSpec } from "../../daemon/index.ts";
import type {
  CallOptions,
  CheckpointInfo,
  Checkpoints,
  RestoreOptions,
  RestoreReport,
  RestoreSession,
  SandboxHandle,
} from "../../runtime/index.ts";
import type { DaemonLink } from "./daemon-link.ts";
import { ConnectedRestoreSession } from "./restore-session.ts";
import { ConnectedSandbox } from "./sandbox.ts";

export class ConnectedCheckpoints implements Checkpoints {
  readonly #link: DaemonLink;

  constructor(link: DaemonLink) {
    this.#link = link;
  }

  async list(): Promise<readonly CheckpointInfo[]> {
    const answer = await this.#link.call(
      { what: "checkpoints were listed", repeatable: true },
      ({ checkpoint }, call) => checkpoint.listCheckpoints({}, call),
    );
    return answer.checkpoints.map((each) => fromCheckpointInfo(each));
  }

  async get(nameOrId: string): Promise<CheckpointInfo> {
    const answer = await this.#link.call({ what: "a checkpoint was looked for", repeatable: true }, (clients, call) =>
      clients.checkpoint.getCheckpoint({ checkpoint: nameOrId }, call),
    );
    return fromCheckpointInfo(answer.checkpoint);
  }

  async restore(nameOrId: string, options: RestoreOptions = {}): Promise<SandboxHandle> {
    const request = { checkpoint: nameOrId, spec: toRestoreSpec(options) };
    // Each call makes another sandbox.
    const answer = await this.#link.call(
      { what: "a checkpoint was being restored", repeatable: false, signal: options.signal, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.restoreCheckpoint(request, call),
    );
    return new ConnectedSandbox(this.#link, fromSandboxInfo(answer.sandbox), true);
  }

  async begin(nameOrId: string, options: Omit<RestoreOptions, "containers"> = {}): Promise<RestoreSession> {
    const request = { checkpoint: nameOrId, spec: toRestoreSpec(options) };
    const { session, expected } = await this.#link.call(
      { what: "a restore was being begun", repeatable: false, signal: options.signal },
      ({ checkpoint }, call) => checkpoint.beginRestore(request, call),
    );
    return new ConnectedRestoreSession(this.#link, session, expected);
  }

  async session(id: string): Promise<RestoreSession> {
    const { expected } = await this.#link.call(
      { what: "a restore was looked for", repeatable: true },
      (clients, call) => clients.checkpoint.waitRestore({ session: id, noWait: true }, call),
    );
    return new ConnectedRestoreSession(this.#link, id, expected);
  }

  async check(nameOrId: string, options: RestoreOptions = {}): Promise<RestoreReport> {
    const request = { checkpoint: nameOrId, spec: toRestoreSpec(options) };
    const answer = await this.#link.call(
      { what: "a checkpoint was checked", repeatable: true, signal: options.signal, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.checkRestore(request, call),
    );
    return fromRestoreReport(answer);
  }

  async verify(nameOrId: string, { signal }: CallOptions = {}): Promise<CheckpointInfo> {
    const answer = await this.#link.call(
      { what: "a checkpoint was verified", repeatable: true, signal, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.verifyCheckpoint({ checkpoint: nameOrId }, call),
    );
    return fromCheckpointInfo(answer.checkpoint);
  }

  async remove(nameOrId: string): Promise<CheckpointInfo> {
    const answer = await this.#link.call(
      { what: "a checkpoint was being removed", repeatable: false, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.removeCheckpoint({ checkpoint: nameOrId }, call),
    );
    return fromCheckpointInfo(answer.checkpoint);
  }
}
