/**
 * Which sandbox has which IOMMU group of this host, whatever root it belongs to; and what the group's functions had before. One file
 * per group, written before the first function is taken and removed after the last is back: whatever dies when, the next owner
 * of the root, or whoever asks for the group, can put it right. The directory is in memory, as the bindings are: both end with
 * the host's boot.
 */
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  BelljarError,
  type Clock,
  type Field,
  hasErrno,
  isId,
  type Log,
  messageChain,
  vmmLimits,
} from "../../base/index.ts";
import { type acquireLock, StateFile, type StateSchema } from "../../store/index.ts";
import {
  decodePciAddress,
  decodeTakenFunction,
  planTaking,
  returnFunction,
  type TakenFunction,
  takeFunction,
  untilGroupFree,
} from "./binding.ts";
import { checkViable, findGroup, groupOf, type IommuGroup, type PciFunction, readFunction } from "./group.ts";
import { checkUnused } from "./host-use.ts";
import { groupNode, type PciHost } from "./pci-host.ts";
import type { VfioSource } from "./source.ts";

export interface VfioHolder {
  readonly rootDir: string;
  readonly sandboxId: string;
}

export interface VfioDeps {
  readonly host: PciHost;
  /** The same for all roots of a host. */
  readonly claimsDir: string;
  readonly lock: typeof acquireLock;
  readonly clock: Clock;
  readonly log: Log;
}

interface VfioClaim extends VfioHolder {
  readonly group: number;
  /** Addresses of what goes to the guest. */
  readonly functions: readonly string[];
  readonly taken: readonly TakenFunction[];
}

const claimSchema: StateSchema<VfioClaim> = {
  kind: "vfio-claim",
  migrations: [],
  decode: (field: Field) => {
    const sandboxId = field.field("sandboxId").string({ maxLength: 64 });
    if (!isId(sandboxId)) throw field.field("sandboxId").expected("an id");
    return {
      rootDir: field.field("rootDir").string({ minLength: 1, maxLength: 4_096 }),
      sandboxId,
      group: field.field("group").integer({ min: 0, max: 999_999 }),
      functions: field.field("functions").array(decodePciAddress, { maxItems: vmmLimits.portFunctionsMax }),
      taken: field.field("taken").array(decodeTakenFunction, { maxItems: vmmLimits.portFunctionsMax }),
    };
  },
};

export interface ReturnedGroup {
  readonly group: number;
  /** What was done, in words. */
  readonly what: string;
}

export class VfioClaims {
  readonly #deps: VfioDeps;

  constructor(deps: VfioDeps) {
    this.#deps = deps;
  }

  /**
   * Takes a device's group from the host, all of it or nothing. A group that this sandbox has already is as it was.
   * @throws BelljarError `IOMMU_UNAVAILABLE`, `VFIO_UNAVAILABLE`, `DEVICE_NOT_FOUND`, `DEVICE_UNSUPPORTED`, `DEVICE_IN_USE`,
   * `GROUP_NOT_VIABLE`, `DEVICE_FAILED`, `LOCKED`
   */
  async take(source: Exclude<VfioSource, { kind: "control" }>, holder: VfioHolder): Promise<IommuGroup> {
    const { host, clock } = this.#deps;
    const found = await findGroup(host, source);
    return await this.#locked(async () => {
      const file = this.#file(found.group);
      const claim = await readClaim(file);
      if (claim !== undefined && isSame(claim, holder)) return found;
      if (claim !== undefined && (await isThere(claim))) throw takenBy(claim);
      if (claim !== undefined) await this.#giveBack(file, claim);
      const group = await findGroup(host, source);
      for (const each of group.functions) await checkUnused(host, each);
      await untilGroupFree(host, clock, group.group);
      const made = {
        ...holder,
        group: group.group,
        functions: group.functions.map(({ address }) => address),
        taken: await planTaking(host, group.functions),
      };
      await file.write(made);
      try {
        for (const each of made.taken) await takeFunction(host, each);
        await checkViable(host, group);
      } catch (error) {
        await this.#giveBack(file, made).catch((failure: unknown) => {
          this.#deps.log.error("a device could not be given back", { cause: messageChain(failure).join(": ") });
        });
        throw error;
      }
      return group;
    });
  }

  /** The drivers get back what they had. Success when this sandbox has no claim on the group. */
  async giveBack(group: number, holder: VfioHolder): Promise<void> {
    await this.#locked(async () => {
      const file = this.#file(group);
      const claim = await readClaim(file);
      if (claim !== undefined && isSame(claim, holder)) await this.#giveBack(file, claim);
    });
  }

  /** What a source stands for now. Changes nothing. @throws BelljarError as `take` does for what cannot be handed on */
  async find(source: Exclude<VfioSource, { kind: "control" }>): Promise<IommuGroup> {
    return await findGroup(this.#deps.host, source);
  }

  /** What these functions are; those that have gone are left out. */
  async describe(addresses: readonly string[]): Promise<(PciFunction & { readonly group: number })[]> {
    const found: (PciFunction & { readonly group: number })[] = [];
    for (const address of addresses) {
      try {
        const group = await groupOf(this.#deps.host, address);
        found.push({ ...(await readFunction(this.#deps.host, address)), group });
      } catch (error) {
        if (BelljarError.from(error).reason === "INTERNAL") throw error;
      }
    }
    return found;
  }

  /** The groups that this sandbox has, with the addresses of their functions. */
  async heldBy(holder: VfioHolder): Promise<{ readonly group: number; readonly functions: readonly string[] }[]> {
    const claims: VfioClaim[] = [];
    for (const file of await this.#files()) {
      const claim = await readClaim(file);
      if (claim !== undefined && isSame(claim, holder)) claims.push(claim);
    }
    return claims;
  }

  /** Everything that this sandbox has; each on its own, and the first error at the end. */
  async giveBackAll(holder: VfioHolder): Promise<void> {
    const errors: unknown[] = [];
    for (const { group } of await this.heldBy(holder)) {
      await this.giveBack(group, holder).catch((error: unknown) => errors.push(error));
    }
    if (errors.length > 0) throw BelljarError.from(errors[0]);
  }

  /** Gives back what sandboxes of this root have claimed that are no more. */
  async recover(rootDir: string, has: (sandboxId: string) => boolean): Promise<ReturnedGroup[]> {
    const files = await this.#files();
    if (files.length === 0) return [];
    const done: ReturnedGroup[] = [];
    await this.#locked(async () => {
      for (const file of files) {
        try {
          const claim = await readClaim(file);
          if (claim?.rootDir !== rootDir || has(claim.sandboxId)) continue;
          await this.#giveBack(file, claim);
          done.push({ group: claim.group, what: `given back to the host: sandbox ${claim.sandboxId} is no more` });
        } catch (error) {
          this.#deps.log.warn("a device could not be given back", {
            claim: file.path,
            cause: messageChain(error).join(": "),
          });
        }
      }
    });
    return done;
  }

  /** The claim goes last, so that what was cut short is found again. */
  async #giveBack(file: StateFile<VfioClaim>, { group, taken }: VfioClaim): Promise<void> {
    const { host, clock } = this.#deps;
    if (await host.exists(groupNode(host, group))) await untilGroupFree(host, clock, group);
    const errors: unknown[] = [];
    for (const each of [...taken].reverse()) {
      await returnFunction(host, each).catch((error: unknown) => errors.push(error));
    }
    if (errors.length > 0) throw BelljarError.from(errors[0]);
    await file.remove();
  }

  async #files(): Promise<StateFile<VfioClaim>[]> {
    const { host, claimsDir } = this.#deps;
    const names = (await host.list(claimsDir)).filter((name) => /^group-\d+\.json$/.test(name));
    return names.map((name) => new StateFile(join(claimsDir, name), claimSchema));
  }

  #file(group: number): StateFile<VfioClaim> {
    return new StateFile(join(this.#deps.claimsDir, `group-${group}.json`), claimSchema);
  }

  async #locked<T>(work: () => Promise<T>): Promise<T> {
    const { claimsDir, lock } = this.#deps;
    await mkdir(claimsDir, { recursive: true, mode: 0o700 });
    await using _lock = await lock(join(claimsDir, "lock"), {
      mode: "exclusive",
      timeoutMs: vmmLimits.groupLockTimeoutMs,
      what: "the list of devices that sandboxes have",
    });
    return await work();
  }
}

async function readClaim(file: StateFile<VfioClaim>): Promise<VfioClaim | undefined> {
  try {
    return await file.read();
  } catch (error) {
    if (BelljarError.from(error).reason === "STATE_MISSING") return undefined;
    throw error;
  }
}

function isSame(a: VfioHolder, b: VfioHolder): boolean {
  return a.rootDir === b.rootDir && a.sandboxId === b.sandboxId;
}

/** A sandbox's directory is there before it claims anything, and goes last. */
async function isThere({ rootDir, sandboxId }: VfioHolder): Promise<boolean> {
  try {
    await stat(join(rootDir, "sandboxes", sandboxId));
    return true;
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENOTDIR")) return false;
    throw error;
  }
}

function takenBy({ rootDir, sandboxId, group }: VfioClaim): BelljarError {
  return new BelljarError("DEVICE_IN_USE", `sandbox ${sandboxId} of ${rootDir} has IOMMU group ${group}`, {
    facts: { group, sandbox: sandboxId, root: rootDir },
    remedy: "Remove the device from that sandbox, or delete the sandbox.",
  });
}
