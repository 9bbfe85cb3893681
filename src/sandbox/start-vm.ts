/**
 * Starts a sandbox's VM: as a copy of a template where there may be one, otherwise by booting. A template makes a start quick, and
 * is never a reason for its failure.
 */
import { BelljarError, type Log, messageChain, throwIfAborted } from "../base/index.ts";
import type { Hypervisor, LoadOptions, StartOptions, Vm, VmConfig } from "../hypervisor/interface.ts";
import type { NetworkState, Networks } from "../network/index.ts";
import { linkMemory } from "./base-memory.ts";
import type { SandboxSettings } from "./config.ts";
import { endProcess } from "./end-process.ts";
import type { LoadSource, WaitingCopy } from "./load-source.ts";
import type { BootTemplate, TemplateSource, VmPool } from "./template-source.ts";

export interface BootOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told when a template is made first. */
  readonly progress?: ((step: string) => void) | undefined;
  readonly onSpawn?: StartOptions["onSpawn"];
}

interface StartDeps {
  readonly hypervisor: Hypervisor;
  readonly networks: Networks;
  readonly templates?: TemplateSource | undefined;
  readonly pool?: VmPool | undefined;
  readonly log: Log;
}

interface StartWish {
  readonly config: VmConfig;
  readonly guestImage: string;
  readonly settings: SandboxSettings;
  /** Name of the sandbox's own for the file of its memory. */
  readonly memoryPath: string;
  /** Where the VMM is to run. */
  readonly network: NetworkState | undefined;
}

/** What would end a boot too is not tried twice. */
const ENDS_ANY_BOOT: ReadonlySet<string> = new Set([
  "CANCELLED",
  "NOT_ENOUGH_MEMORY",
  "VMM_MISSING",
  "VMM_TOO_OLD",
  "GUEST_PANIC",
  "AGENT_TIMEOUT",
  "AGENT_VERSION",
]);

export async function startVm(deps: StartDeps, wish: StartWish, options: BootOptions): Promise<Vm> {
  try {
    const template = await findTemplate(deps, wish, options);
    if (template !== undefined) {
      const vm = (await takeWaiting(deps, wish, template, options)) ?? (await startCopy(deps, wish, template, options));
      deps.pool?.started(wish.config.id, wish.config, template, wish.network);
      return vm;
    }
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (ENDS_ANY_BOOT.has(error.reason)) throw error;
    deps.log.warn("booting without a template", { cause: messageChain(error).join(": ") });
  }
  return await deps.hypervisor.start(wish.config, { signal: options.signal, onSpawn: options.onSpawn });
}

async function findTemplate(
  { templates, log }: StartDeps,
  { config, guestImage, settings }: StartWish,
  options: BootOptions,
): Promise<BootTemplate | undefined> {
  // Memory that other programs map cannot be a copy of a template's, and a guest that has booted finds no device that was there.
  const isPlain = config.sharedMemory !== true && config.disks.length === 1 && (config.devices ?? []).length === 0;
  if (templates !== undefined && settings.template !== false && isPlain) {
    const { signal, progress } = options;
    // A template serves sandboxes of every network: what it is made with has none.
    const vm: VmConfig = { ...config, networkNamespace: undefined };
    return await templates.get({ vm, guestImage, domain: settings.templateDomain ?? "", signal, progress });
  }
  log.debug("this configuration is booted: it has no template");
  return undefined;
}

/** One that runs already and has waited for this sandbox. */
async function takeWaiting(
  { hypervisor, networks, pool, log }: StartDeps,
  { config, memoryPath: own, network }: StartWish,
  { digest, memoryPath }: BootTemplate,
  { signal, onSpawn }: BootOptions,
): Promise<Vm | undefined> {
  const waiting = await pool?.take(config.id, digest);
  if (waiting === undefined) return undefined;
  try {
    throwIfAborted(signal);
    // A VMM stays in the network namespace in which it was started; another one may have its name by now.
    if (network !== undefined && !(await networks.isAt(network, waiting.vmm.pid))) {
      throw new BelljarError("NETWORK_FAILED", "it is in another network namespace");
    }
    const path = await linkMemory(memoryPath, own);
    await onSpawn?.(waiting.vmm);
    return await hypervisor.attach({ ...waiting, memoryFile: { path, use: "private", template: digest } });
  } catch (error) {
    await endProcess(waiting.vmm);
    throwIfAborted(signal);
    log.warn("a VM that waited for this sandbox was of no use", { cause: messageChain(error).join(": ") });
    return undefined;
  }
}

interface LoadDeps extends Pick<StartDeps, "hypervisor" | "networks" | "log"> {
  readonly network: NetworkState | undefined;
  readonly source: Pick<LoadSource, "makeDisks" | "stoppedAtMs" | "takeWaiting">;
}

interface LoadedVm extends Pick<LoadSource, "stoppedAtMs">, Pick<WaitingCopy, "link"> {
  readonly vm: Vm;
}

/** A VM that was saved: in a VMM that waits for it, where there is one that is of use. */
export async function loadVm(
  { hypervisor, networks, network, source, log }: LoadDeps,
  config: VmConfig,
  options: LoadOptions,
): Promise<LoadedVm> {
  const { makeDisks = async () => {}, stoppedAtMs } = source;
  const waiting = source.takeWaiting?.();
  if (waiting !== undefined) {
    try {
      if (network !== undefined && !(await networks.isAt(network, waiting.vmm.pid))) {
        throw new BelljarError("NETWORK_FAILED", "it is in another network namespace");
      }
      const { ranUntilMs } = waiting;
      if (ranUntilMs === undefined) await makeDisks();
      return { vm: await waiting.load(config, options), stoppedAtMs: ranUntilMs ?? stoppedAtMs, link: waiting.link };
    } catch (error) {
      await waiting.kill();
      throwIfAborted(options.signal);
      log.warn("a VMM that waited for this sandbox was of no use", { cause: messageChain(error).join(": ") });
    }
  }
  await makeDisks();
  return { vm: await hypervisor.start(config, options), stoppedAtMs };
}

async function startCopy(
  { hypervisor }: StartDeps,
  { config, memoryPath: own }: StartWish,
  { digest, memoryPath, devicesPath }: BootTemplate,
  { signal, onSpawn }: BootOptions,
): Promise<Vm> {
  const path = await linkMemory(memoryPath, own);
  const copy: VmConfig = { ...config, memoryFile: { path, use: "private", template: digest } };
  const vm = await hypervisor.start(copy, { signal, onSpawn, loadDevicesFrom: devicesPath });
  try {
    await vm.resume();
    return vm;
  } catch (error) {
    await vm.kill();
    throw error;
  }
}
