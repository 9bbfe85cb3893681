/**
 * A sandbox's directory: `sandboxes/<id>/` with `sandbox.json` and `disks/`. It appears with its state already in it, under
 * its final name, by one rename; until then its name says who makes it. So whatever is found there can be judged.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, identifyProcess, type ProcessIdentity } from "../base/index.ts";
import { publish, StateFile, syncDirectory } from "../store/index.ts";
import { type SandboxState, sandboxStateSchema } from "./state.ts";

const STATE_FILE = "sandbox.json";

export class SandboxRecord {
  readonly #dir: string;
  readonly #file: StateFile<SandboxState>;
  #state: SandboxState;

  private constructor(dir: string, file: StateFile<SandboxState>, state: SandboxState) {
    this.#dir = dir;
    this.#file = file;
    this.#state = state;
  }

  get state(): SandboxState {
    return this.#state;
  }

  get disksDir(): string {
    return join(this.#dir, "disks");
  }

  static async create(sandboxesDir: string, fields: Omit<SandboxState, "owner" | "vm">): Promise<SandboxRecord> {
    const owner = await thisProcess();
    const state: SandboxState = { ...fields, owner };
    await mkdir(sandboxesDir, { recursive: true, mode: 0o700 });
    const dir = join(sandboxesDir, fields.id);
    const unfinished = join(sandboxesDir, unfinishedName(fields.id, owner));
    try {
      await mkdir(join(unfinished, "disks"), { recursive: true, mode: 0o700 });
      await new StateFile(join(unfinished, STATE_FILE), sandboxStateSchema).write(state);
      await publish(unfinished, dir);
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true });
      throw error;
    }
    return await SandboxRecord.open(dir);
  }

  /** @throws BelljarError `STATE_MISSING`, `STATE_CORRUPT`, `STATE_VERSION`; the directory is left as it is. */
  static async open(dir: string): Promise<SandboxRecord> {
    const file = new StateFile(join(dir, STATE_FILE), sandboxStateSchema);
    return new SandboxRecord(dir, file, await file.read());
  }

  async update(change: Partial<SandboxState>): Promise<void> {
    this.#state = await this.#file.write({ ...this.#state, ...change });
  }

  /** Disks first, the state last: a removal that is cut short can be taken up again. */
  async remove(): Promise<void> {
    await rm(this.disksDir, { recursive: true, force: true });
    await this.#file.remove();
    await rm(this.#dir, { recursive: true, force: true });
    await syncDirectory(join(this.#dir, ".."));
  }
}

const UNFINISHED = /^\.new-([0-9a-f]+)-(\d+)-(\d+)-([0-9a-f-]+)$/;

function unfinishedName(id: string, owner: ProcessIdentity): string {
  return `.new-${id}-${owner.pid}-${owner.startTicks}-${owner.bootId}`;
}

/** Who was making the directory of this name; undefined for a name of another form. */
export function makerOf(name: string): ProcessIdentity | undefined {
  const [, , pid, startTicks, bootId] = UNFINISHED.exec(name) ?? [];
  if (pid === undefined || startTicks === undefined || bootId === undefined) return undefined;
  return { pid: Number(pid), startTicks: Number(startTicks), bootId };
}

async function thisProcess(): Promise<ProcessIdentity> {
  const identity = await identifyProcess(process.pid);
  if (identity === undefined) throw new BelljarError("INTERNAL", "this process is not in /proc");
  return identity;
}
