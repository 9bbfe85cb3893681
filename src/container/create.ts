/** Makes a container: checked first, written down as about to be made, then its disks, then its part in the guest. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, checkName, newId, sandboxLimits } from "../base/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import type { ResolvedImage } from "../images/index.ts";
import { checkAnnotations, checkPciSources, swapAnnotations } from "../sandbox/index.ts";
import type { ContainerConfig } from "./config.ts";
import { Container } from "./container.ts";
import { forget } from "./container-state.ts";
import { settleDevices } from "./device-config.ts";
import { LAYER, ownDisks, SWAP, WRITABLE } from "./disk-names.ts";
import { enterGuest } from "./guest-part.ts";
import type { HandedRoot } from "./handed-root.ts";
import type { ContainerHost } from "./host.ts";
import { checkLimits, limitsOf } from "./limits.ts";
import { type PlacedMounts, placeMounts } from "./mount-place.ts";
import { type MountPlan, planMounts } from "./mount-plan.ts";
import { tmpfsTargets } from "./mounts.ts";
import { Rollback } from "./rollback.ts";
import { growFor, shrinkToNeed } from "./sizing.ts";
import { buildSpec } from "./spec.ts";
import type { ContainerState, HostSandbox } from "./state.ts";
import { signalNumber } from "./stop-signal.ts";
import { storeConfig } from "./stored-config.ts";
import { type StorageOptions, settleStorage } from "./writable.ts";

export interface ContainerDeps extends ContainerHost {
  readonly makeDisk: MakeDisk;
}

/** Makes a disk of this size; one for swap has no file system. */
export type MakeDisk = (
  path: string,
  sizeBytes: number,
  options: {
    readonly empty: boolean;
    readonly signal: AbortSignal | undefined;
    /** Directory whose files it gets. */
    readonly filledFrom?: string | undefined;
    /** `raw` unless told. */
    readonly format?: "raw" | "qcow2" | undefined;
  },
) => Promise<void>;

export interface CreateContainerOptions extends StorageOptions {
  readonly name?: string | undefined;
  /** In place of the image's layers. */
  readonly handed?: HandedRoot | undefined;
  /** The state names the layers: from now on they are known to be used. */
  readonly onRecorded?: (() => PromiseLike<void>) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Of the mounts that are asked for; made here unless it was before. */
  readonly plan?: MountPlan | undefined;
}

/**
 * All or nothing: what was done is undone in reverse order when a later step fails.
 * @throws BelljarError of the step; steps that could not be undone are its fact `notUndone`
 */
export async function createContainer(
  deps: ContainerDeps,
  image: ResolvedImage,
  config: ContainerConfig,
  options: CreateContainerOptions = {},
): Promise<Container> {
  const { sandbox, makeDisk } = deps;
  const { signal } = options;
  const plan = options.plan ?? (await planContainerMounts(deps, config, signal));
  const { state, rollback, own } = await recordContainer(sandbox, image, config, { ...options, plan });
  try {
    await options.onRecorded?.();
    await growFor(sandbox, state.id, { signal });
    for (const { serial, path, format } of ownDisks(state.disks)) {
      const mount = own.get(serial);
      if (mount !== undefined) {
        rollback.add(`remove ${path}`, () => rm(path, { force: true }));
        await makeDisk(path, mount.sizeBytes, { empty: false, signal, filledFrom: mount.filledFrom });
        continue;
      }
      const empty = serial.startsWith(SWAP);
      const sizeBytes = empty ? swapBytesOf(sandbox, state) : (state.storage?.sizeBytes ?? 0);
      rollback.add(`remove ${path}`, () => rm(path, { force: true }));
      await makeDisk(path, sizeBytes, { empty, signal, format });
    }
    await enterGuest(deps, state, signal);
    return new Container(deps, state.id);
  } catch (error) {
    const failure = await rollback.fail(error);
    await shrinkToNeed(sandbox);
    throw failure;
  }
}

/** Checks everything that can be checked before anything is made, and writes the container down as about to be created. */
async function recordContainer(
  sandbox: HostSandbox,
  image: ResolvedImage,
  config: ContainerConfig,
  options: CreateContainerOptions & { readonly plan: MountPlan },
): Promise<{ state: ContainerState; rollback: Rollback; own: PlacedMounts["own"] }> {
  const { state: now } = sandbox;
  const id = newId();
  const name = options.name === undefined ? id : checkName(options.name, "the name of the container");
  if (now.containers.some((other) => other.name === name || other.id === name)) {
    throw new BelljarError("CONTAINER_EXISTS", `sandbox ${sandbox.id} has a container ${name} already`);
  }
  if (now.containers.length >= sandboxLimits.containersMax) {
    throw new BelljarError("INVALID_ARGUMENT", `sandbox ${sandbox.id} has as many containers as it may have`, {
      facts: { max: sandboxLimits.containersMax },
    });
  }
  const stored = storeConfig(config);
  const annotations = checkAnnotations(stored.annotations ?? {});
  const limits = limitsOf(stored);
  checkLimits(limits, sandbox.maxSize);
  settleDevices(stored.devices ?? []);
  checkPciSources(stored.pciDevices ?? [], sandbox.vfioSettings);
  if (stored.stopSignal !== undefined) signalNumber(stored.stopSignal);
  buildSpec(image.config, { ...stored, hostname: now.settings.hostname });
  const { swapBytes, swappiness } = swapAnnotations(annotations, now.annotations);
  const { handed } = options;
  const storage = handed?.root.kind === "disk" ? undefined : settleStorage(options, now.settings.memoryMib);
  const own = (prefix: string, format: DiskConfig["format"]): DiskConfig => ({
    serial: `${prefix}${id}`,
    path: join(sandbox.disksDir, `${prefix}${id}.${format}`),
    format,
    readOnly: false,
  });
  const writable = storage?.kind === "disk" ? [own(WRITABLE, "qcow2")] : [];
  const layers =
    handed?.disks ??
    image.layers.map(
      (layer): DiskConfig => ({ serial: layerSerial(layer.diffId), path: layer.path, format: "raw", readOnly: true }),
    );
  const placed = placeMounts(options.plan, id, sandbox.disksDir);
  const { entrypoint, cmd, env, workingDir, user, stopSignal } = image.config;
  const state: ContainerState = {
    id,
    name,
    image: image.name,
    imageConfig: { entrypoint, cmd, env, workingDir, user, stopSignal },
    config: stored,
    limits,
    disks: [...layers, ...writable, ...(swapBytes === undefined ? [] : [own(SWAP, "raw")]), ...placed.disks],
    ...(placed.mounts.length === 0 ? {} : { mounts: placed.mounts }),
    ...(handed === undefined ? {} : { root: handed.root }),
    storage,
    swappiness,
    createdAtMs: sandbox.clock.nowMs(),
    state: "ready",
    pending: { operation: "create", sinceMs: sandbox.clock.nowMs() },
    inGuest: false,
    frozen: false,
    starts: 0,
    processes: [],
  };
  await sandbox.update((before) => ({ ...before, containers: [...before.containers, state] }));
  const rollback = new Rollback(sandbox.log);
  rollback.add("forget the container", () => forget(sandbox, id));
  return { state, rollback, own: placed.own };
}

/** What has to be known of the host before the container, or even its sandbox, is made. */
export async function planContainerMounts(
  deps: Pick<ContainerHost, "mounts">,
  config: ContainerConfig,
  signal: AbortSignal | undefined,
): Promise<MountPlan> {
  return await planMounts(deps.mounts, config.mounts ?? [], { taken: tmpfsTargets(config), signal });
}

function swapBytesOf(sandbox: HostSandbox, state: ContainerState): number {
  return swapAnnotations(state.config.annotations ?? {}, sandbox.state.annotations).swapBytes ?? 0;
}

/** Serial numbers have at most 20 characters; 72 bits of the diff id tell a sandbox's layers apart. */
function layerSerial(diffId: string): string {
  return `${LAYER}${diffId.replace(/^sha256:/, "").slice(0, 18)}`;
}
