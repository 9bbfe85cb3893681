/** Makes a sandbox with its first container: all or nothing. */
import { join } from "node:path";
import { messageChain, throwIfAborted } from "../base/index.ts";
import {
  type ContainerState,
  containerSandboxSchema,
  createContainer,
  diskMaker,
  limitsOf,
  type MakeDisk,
  planContainerMounts,
  reservePciDevices,
  sizeFor,
} from "../container/index.ts";
import { systemPciHost, VfioClaims } from "../devices/index.ts";
import { noNetworks } from "../network/index.ts";
import { openHostCgroups } from "../resources/index.ts";
import { checkPciSources, Sandbox, type SandboxDeps, type SettledSandbox } from "../sandbox/index.ts";
import { acquireLock, systemDisk } from "../store/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import type { SandboxCreateConfig, SandboxCreateOptions } from "./interface.ts";
import { ManagedSandbox, type ManagedSandboxDeps } from "./managed-sandbox.ts";
import { findRoot } from "./root-source.ts";

export function sandboxDeps(deps: RuntimeDeps): SandboxDeps<ContainerState> {
  return {
    hypervisor: deps.hypervisor,
    acceleration: deps.acceleration,
    connectAgent: deps.connectAgent,
    cgroups: deps.cgroups ?? openHostCgroups({ rootDir: deps.rootDir, log: deps.log }),
    networks: deps.networks ?? noNetworks,
    sandboxesDir: join(deps.rootDir, "sandboxes"),
    runDir: deps.runDir,
    schema: containerSandboxSchema,
    templates: deps.templates,
    pool: deps.pool,
    disk: deps.disk ?? systemDisk,
    lock: deps.lock ?? acquireLock,
    clock: deps.clock,
    log: deps.log,
    vfioClaims: vfioClaims(deps),
  };
}

/** What makes the disks of containers. */
export function makerOf({ makeDisk, rootDir }: RuntimeDeps): MakeDisk {
  return makeDisk ?? diskMaker(blanksDir(rootDir));
}

/** Empty file systems that disks lie over. */
export function blanksDir(rootDir: string): string {
  return join(rootDir, "cache/disks");
}

/** The same directory for all roots of a host: what one of them has, another one must not take. */
const CLAIMS_DIR = "/run/belljar/vfio";

export function vfioClaims(deps: RuntimeDeps): VfioClaims {
  const { lock = acquireLock, clock, log, pci } = deps;
  const { host, claimsDir } = pci ?? { host: systemPciHost(), claimsDir: CLAIMS_DIR };
  return new VfioClaims({ host, claimsDir, lock, clock, log });
}

export async function createSandbox(
  deps: ManagedSandboxDeps,
  id: string,
  settled: SettledSandbox,
  config: SandboxCreateConfig,
  options: SandboxCreateOptions,
  /** Called once there is something that must be let go when the runtime is. */
  onMade: (managed: ManagedSandbox) => void,
): Promise<ManagedSandbox> {
  const { runtime } = deps;
  const { signal, progress = () => {} } = options;
  throwIfAborted(signal);
  const guestImage = await runtime.guestImages.current();
  // Until the state says that it is used.
  await using source = await findRoot(runtime, config, signal);
  const { image, handed } = source;
  // Before there is a VM: what cannot be mounted is told at once.
  const plan = await planContainerMounts(deps, config.container ?? {}, signal);
  const now = runtime.clock.nowMs();
  const sandboxes = sandboxDeps(runtime);
  // Written down with the rest: it need not be said once more when it is made.
  const cgroups = await sandboxes.cgroups.plan(id);
  const sandbox = await Sandbox.create(sandboxes, {
    id,
    name: settled.name,
    createdAtMs: now,
    image: image.name,
    runDir: join(runtime.runDir, id),
    settings: plan.needsSharedMemory ? { ...settled.settings, vhostUser: true } : settled.settings,
    annotations: settled.annotations,
    state: "ready",
    pending: { operation: "create", sinceMs: now },
    guestImage: guestImage.digest,
    cgroups: cgroups.length === 0 ? undefined : cgroups,
    generation: 0,
    containers: [],
  });
  const managed = new ManagedSandbox(deps, sandbox);
  onMade(managed);
  managed.events.emit({ kind: "created", atMs: now, image: image.name });
  const { outputs, copies } = managed;
  await sandbox.exclusive("create", async () => {
    try {
      progress("starting the VM");
      checkPciSources(config.container?.pciDevices ?? [], sandbox.vfioSettings);
      await reservePciDevices(sandbox, config.container?.pciDevices ?? []);
      const limits = limitsOf(config.container ?? {});
      await sandbox.boot(guestImage, sizeFor(settled.settings, sandbox.maxSize, [limits]), { signal, progress });
      progress("preparing the container");
      const container = await createContainer(
        { sandbox, outputs, copies, mounts: deps.mounts, makeDisk: makerOf(runtime) },
        image,
        config.container ?? {},
        {
          storage: config.storage,
          storageBytes: config.storageBytes,
          handed,
          onRecorded: () => source[Symbol.asyncDispose](),
          signal,
          plan,
        },
      );
      if (options.start !== false) {
        progress("starting the container");
        await sandbox.update((state) => ({ ...state, state: "running" }));
        await container.start({ signal });
      }
      await sandbox.update((state) => ({ ...state, pending: undefined }));
    } catch (error) {
      await managed.remove().catch((failure: unknown) => {
        // The state still says "create": the next owner of the root removes what is left.
        sandbox.log.error("a sandbox that failed could not be removed", { cause: messageChain(failure).join(": ") });
      });
      throw error;
    }
  });
  await managed.supervise();
  return managed;
}
