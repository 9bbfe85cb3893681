/**
 * The templates of a host: DIR/<digest>/ with `memory`, `devices` and `manifest.json`. A template appears by one rename, complete,
 * synced and tried out, and is never changed after that: VMs that run have its memory mapped.
 */
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, checkpointLimits, hasErrno, newId } from "../base/index.ts";
import { abortable, type BootTemplate, type TemplateSource, type TemplateWish } from "../sandbox/index.ts";
import { type acquireLock, type Disk, publish, StateFile, TEMPORARY_MARK } from "../store/index.ts";
import { checkFrozen, type FreezeDeps, filesOf, freezeGuest } from "./freeze.ts";
import {
  TEMPLATE_DIGEST,
  type TemplateKey,
  type TemplateState,
  templateDigest,
  templateSchema,
} from "./template-state.ts";

export interface TemplatesDeps extends FreezeDeps {
  readonly dir: string;
  readonly disk: Disk;
  readonly lock: typeof acquireLock;
}

export interface TemplateInfo extends TemplateState {
  /** What it takes on disk, in bytes: pages of zeros take nothing. */
  readonly diskBytes: number;
}

const MANIFEST = "manifest.json";

export class Templates implements TemplateSource {
  readonly #deps: TemplatesDeps;
  /** Those that this process has looked at, or is making. */
  readonly #known = new Map<string, Promise<BootTemplate>>();
  #stopping = new AbortController();

  constructor(deps: TemplatesDeps) {
    this.#deps = deps;
  }

  async get(wish: TemplateWish): Promise<BootTemplate> {
    const key: TemplateKey = {
      guestImage: wish.guestImage,
      compatibility: await this.#deps.hypervisor.compatibility(wish.vm),
      domain: wish.domain,
    };
    const digest = templateDigest(key);
    let found = this.#known.get(digest);
    if (found === undefined) {
      found = this.#findOrMake(digest, key, wish);
      this.#known.set(digest, found);
      // Whoever comes next tries again.
      found.catch(() => this.#known.delete(digest));
    }
    return await abortable(found, wish.signal);
  }

  /** The newest last. Those that cannot be read are left out; `remove` takes them all the same. */
  async list(): Promise<TemplateInfo[]> {
    const infos: TemplateInfo[] = [];
    for (const digest of await this.#digests()) {
      const state = await this.#read(digest).catch(() => undefined);
      if (state === undefined) continue;
      const { blocks } = await stat(filesOf(join(this.#deps.dir, digest)).memoryPath);
      infos.push({ ...state, diskBytes: blocks * 512 + state.devicesBytes });
    }
    return infos.sort((one, other) => one.createdAtMs - other.createdAtMs);
  }

  /**
   * VMs that were started from it run on: they have its memory mapped.
   * @throws BelljarError `TEMPLATE_NOT_FOUND`, `INVALID_ARGUMENT` when the beginning of a digest fits several
   */
  async remove(digestOrPrefix: string): Promise<string> {
    const fitting = (await this.#digests()).filter((digest) => digest.startsWith(digestOrPrefix));
    const [digest] = fitting;
    if (digest === undefined || digestOrPrefix === "") {
      throw new BelljarError("TEMPLATE_NOT_FOUND", `there is no template ${JSON.stringify(digestOrPrefix)}`);
    }
    if (fitting.length > 1) {
      throw new BelljarError("INVALID_ARGUMENT", `${fitting.length} templates begin with ${digestOrPrefix}`);
    }
    await using _lock = await this.#lock();
    this.#known.delete(digest);
    const aside = join(this.#deps.dir, `${TEMPORARY_MARK}${newId()}`);
    await publish(join(this.#deps.dir, digest), aside, this.#deps.disk);
    await rm(aside, { recursive: true, force: true });
    return digest;
  }

  /** Removes what makers that were killed have left, unless somebody makes one just now. */
  async sweep(): Promise<void> {
    if ((await this.#unfinished()).length === 0) return;
    try {
      await using _lock = await this.#lock(0);
      await this.#sweep();
    } catch (error) {
      if (BelljarError.from(error).reason !== "LOCKED") throw error;
    }
  }

  /** Ends what is being made; whoever wants it later may begin again. */
  async stop(): Promise<void> {
    this.#stopping.abort(new BelljarError("CANCELLED", "the runtime was closed"));
    await Promise.allSettled(this.#known.values());
    this.#stopping = new AbortController();
  }

  async #findOrMake(digest: string, key: TemplateKey, wish: TemplateWish): Promise<BootTemplate> {
    const found = await this.#find(digest);
    if (found !== undefined) return found;
    wish.progress?.("making a template of the guest, once");
    return await this.#make(digest, key, wish);
  }

  async #find(digest: string): Promise<BootTemplate | undefined> {
    const state = await this.#read(digest);
    return state === undefined ? undefined : { digest, ...filesOf(join(this.#deps.dir, digest)) };
  }

  /** @throws BelljarError `TEMPLATE_CORRUPT`, `STATE_VERSION` */
  async #read(digest: string): Promise<TemplateState | undefined> {
    const dir = join(this.#deps.dir, digest);
    const file = new StateFile(join(dir, MANIFEST), templateSchema, this.#deps.disk);
    const state = await file.read().catch((error: unknown) => {
      if (BelljarError.from(error).reason === "STATE_MISSING") return undefined;
      throw error;
    });
    if (state === undefined) return undefined;
    const { memoryPath, devicesPath } = filesOf(dir);
    for (const [path, sizeBytes] of [
      [memoryPath, state.memoryBytes],
      [devicesPath, state.devicesBytes],
    ] as const) {
      const size = await stat(path).then(
        (info) => info.size,
        () => undefined,
      );
      if (size === sizeBytes && state.digest === digest) continue;
      throw new BelljarError("TEMPLATE_CORRUPT", `the template ${digest.slice(0, 12)} is damaged: ${path}`, {
        facts: { path, expectedBytes: sizeBytes, ...(size === undefined ? {} : { foundBytes: size }) },
      });
    }
    return state;
  }

  async #make(digest: string, key: TemplateKey, { vm }: TemplateWish): Promise<BootTemplate> {
    const { dir, disk, clock, hypervisor } = this.#deps;
    const { signal } = this.#stopping;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await using _lock = await this.#lock();
    await this.#sweep();
    const madeMeanwhile = await this.#find(digest);
    if (madeMeanwhile !== undefined) return madeMeanwhile;
    const temporary = join(dir, `${TEMPORARY_MARK}${digest.slice(0, 12)}`);
    await mkdir(temporary, { mode: 0o700 });
    try {
      const frozen = await freezeGuest(this.#deps, vm, temporary, signal);
      await checkFrozen(this.#deps, vm, frozen, signal).catch((cause: unknown) => {
        throw new BelljarError("TEMPLATE_FAILED", "a copy of the frozen guest does not answer", { cause });
      });
      const { name, version } = await hypervisor.info();
      const { acceleration, memoryMib, cpus } = vm;
      await new StateFile(join(temporary, MANIFEST), templateSchema, disk).write({
        digest,
        key,
        createdAtMs: clock.nowMs(),
        hypervisor: `${name} ${version}`,
        acceleration,
        memoryMib,
        cpus,
        memoryBytes: (await stat(frozen.memoryPath)).size,
        devicesBytes: (await stat(frozen.devicesPath)).size,
      });
      await publish(temporary, join(dir, digest), disk);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw error;
    }
    return { digest, ...filesOf(join(dir, digest)) };
  }

  /** Under the lock. The VMs of makers that were killed end with the recovery of their root. */
  async #sweep(): Promise<void> {
    for (const name of await this.#unfinished()) {
      await rm(join(this.#deps.dir, name), { recursive: true, force: true });
    }
  }

  async #unfinished(): Promise<string[]> {
    return (await this.#names()).filter((name) => name.includes(TEMPORARY_MARK));
  }

  async #digests(): Promise<string[]> {
    return (await this.#names()).filter((name) => TEMPLATE_DIGEST.test(name));
  }

  async #names(): Promise<string[]> {
    try {
      return (await readdir(this.#deps.dir)).sort();
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return [];
      throw error;
    }
  }

  async #lock(timeoutMs: number = checkpointLimits.templateLockTimeoutMs): Promise<AsyncDisposable> {
    return await this.#deps.lock(join(this.#deps.dir, "lock"), {
      mode: "exclusive",
      timeoutMs,
      what: "the directory of templates",
      signal: this.#stopping.signal,
    });
  }
}
