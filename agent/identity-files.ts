/**
 * Who the sandbox is, as its containers see it: the machine id, the kernel's boot id, and `/run/belljar/identity`, which says what has
 * last happened to it. One set of files for all containers, in the guest's memory, which they cannot change.
 *
 * They are rewritten in place, and synchronously: a file that is mounted by itself would stay what it was if another took its name; who
 * watches the file need not find it again; and everything stands still meanwhile, so nobody reads half of it.
 */
import { closeSync, constants, ftruncateSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { checkName, machineIdOf } from "../src/base/ids.ts";
import type { PlannedFile } from "../src/protocol/wake.ts";
import type { BindMount } from "./spec-changes.ts";

/** In place of the kernel's own, which is the same in all copies of a guest and cannot be changed. */
export const BOOT_ID = "/proc/sys/kernel/random/boot_id";

const EVENTS = ["resumed", "restored", "forked"] as const;
const MOUNT_OPTIONS = ["ro", "nosuid", "noexec", "nodev"];

export type IdentityEvent = (typeof EVENTS)[number];

export interface IdentityNews {
  readonly event: string;
  /** Empty leaves it as it is; so do the next two. */
  readonly sandboxId: string;
  readonly machineId: string;
  readonly bootId: string;
  readonly generation: number;
}

export interface IdentityDeps {
  readonly dir: string;
  /** From the kernel: what is drawn in the agent's own process is the same in all copies of it. */
  readonly newUuid: () => string;
  readonly nowMs: () => number;
  /** `writeInPlace` unless told. */
  readonly write?: (path: string, text: string) => void;
}

export class IdentityFiles {
  readonly #deps: IdentityDeps;
  #sandboxId = "";
  #machineId = "";
  #bootId = "";
  #event: IdentityEvent | "created" = "created";
  #generation = 0;
  #sinceMs = 0;
  /** What each file has; none before the first container. */
  readonly #written = new Map<string, string>();

  constructor(deps: IdentityDeps) {
    this.#deps = deps;
  }

  /**
   * Another sandbox than before is another machine, booted at another time, to which nothing has happened yet: a copy of a guest in which
   * containers have been before. One that is restored or forked is told so afterwards. @throws BelljarError `INVALID_ARGUMENT`
   */
  introduce(sandboxId: string): void {
    if (sandboxId === "" || sandboxId === this.#sandboxId) return;
    this.#become(checkName(sandboxId, "sandbox id"));
    this.#event = "created";
    this.#generation = 0;
    this.#sinceMs = this.#deps.nowMs();
    if (this.#written.size > 0) this.#writeAll();
  }

  /**
   * @param toldAtMs the files say so already, with this time
   * @throws BelljarError `INVALID_ARGUMENT`; nothing has changed then
   */
  announce(news: IdentityNews, toldAtMs?: number): IdentityEvent {
    const event = EVENTS.find((known) => known === news.event);
    if (event === undefined) throw new BelljarError("INVALID_ARGUMENT", "there is no such event of a sandbox");
    if (!/^(?:[0-9a-f]{32})?$/.test(news.machineId)) {
      throw new BelljarError("INVALID_ARGUMENT", "a machine id has 32 hexadecimal digits");
    }
    if (!/^(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?$/.test(news.bootId)) {
      throw new BelljarError("INVALID_ARGUMENT", "a boot id is a UUID");
    }
    if (news.sandboxId !== "" && news.sandboxId !== this.#sandboxId)
      this.#become(checkName(news.sandboxId, "sandbox id"));
    if (news.machineId !== "") this.#machineId = news.machineId;
    if (news.bootId !== "") this.#bootId = news.bootId;
    this.#event = event;
    this.#generation = news.generation;
    this.#sinceMs = toldAtMs ?? this.#deps.nowMs();
    if (this.#written.size === 0) return event;
    if (toldAtMs === undefined) this.#writeAll();
    else for (const [name, text] of this.#texts()) this.#written.set(name, text);
    return event;
  }

  /** The same files as a copy is to have them, with words that stand for what is not known yet. */
  plan(): readonly PlannedFile[] {
    if (this.#written.size === 0) return [];
    return textsOf(PLANNED).map(([name, text]) => ({ path: join(this.#deps.dir, name), text }));
  }

  /** What a container mounts. */
  mounts(): readonly BindMount[] {
    if (this.#written.size === 0) {
      if (this.#machineId === "") this.#become("");
      this.#sinceMs ||= this.#deps.nowMs();
      // Nothing can be made in a directory that is mounted read-only, and a kept-alive container has its program there.
      this.#write("run/busybox", "");
      this.#writeAll();
    }
    const mount = (name: string, destination: string): BindMount => ({
      source: join(this.#deps.dir, name),
      destination,
      options: MOUNT_OPTIONS,
    });
    return [mount("run", "/run/belljar"), mount("machine-id", "/etc/machine-id"), mount("boot_id", BOOT_ID)];
  }

  #become(sandboxId: string): void {
    const uuid = this.#deps.newUuid();
    this.#sandboxId = sandboxId;
    this.#machineId = sandboxId === "" ? uuid.replaceAll("-", "") : machineIdOf(sandboxId);
    this.#bootId = sandboxId === "" ? this.#deps.newUuid() : uuid;
  }

  #writeAll(): void {
    for (const [name, text] of this.#texts()) this.#write(name, text);
  }

  #texts(): readonly (readonly [name: string, text: string])[] {
    return textsOf({
      event: this.#event,
      generation: String(this.#generation),
      sandbox: this.#sandboxId,
      time: new Date(this.#sinceMs).toISOString(),
      machineId: this.#machineId,
      bootId: this.#bootId,
    });
  }

  /** Unless it has this text already: then nothing is told to those who watch it. */
  #write(name: string, text: string): void {
    if (this.#written.get(name) === text) return;
    (this.#deps.write ?? writeInPlace)(join(this.#deps.dir, name), text);
    this.#written.set(name, text);
  }
}

interface IdentityWords {
  readonly event: string;
  readonly generation: string;
  readonly sandbox: string;
  readonly time: string;
  readonly machineId: string;
  readonly bootId: string;
}

const PLANNED: IdentityWords = {
  event: "{event}",
  generation: "{generation}",
  sandbox: "{sandbox}",
  time: "{time}",
  machineId: "{machine-id}",
  bootId: "{boot-id}",
};

function textsOf(words: IdentityWords): readonly (readonly [name: string, text: string])[] {
  const { event, generation, sandbox, time } = words;
  const lines = [`event=${event}`, `generation=${generation}`, `sandbox=${sandbox}`, `time=${time}`];
  return [
    ["machine-id", `${words.machineId}\n`],
    ["boot_id", `${words.bootId}\n`],
    ["run/identity", `${lines.join("\n")}\n`],
  ];
}

/** Never shorter than both texts while it changes: a reader that is not held up finds lines of either, and no empty file. */
function writeInPlace(path: string, text: string): void {
  const fd = openAnew(path);
  try {
    writeSync(fd, text, 0);
    ftruncateSync(fd, Buffer.byteLength(text));
  } finally {
    closeSync(fd);
  }
}

function openAnew(path: string): number {
  const flags = constants.O_WRONLY | constants.O_CREAT;
  try {
    return openSync(path, flags, 0o444);
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return openSync(path, flags, 0o444);
  }
}
