/** Everything that a restore depends on, looked at before anything is started. */
import { access } from "node:fs/promises";
import { basename, join } from "node:path";
import { BelljarError, checkName } from "../base/index.ts";
import type { CheckpointState, CheckpointStore } from "../checkpoint/index.ts";
import type { MachineTraits } from "../hypervisor/index.ts";
import { copiedNetwork } from "../network/index.ts";
import { bootOf, checkHostname, savedConfig } from "../sandbox/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import { openGuestImage } from "./guest-image.ts";
import type { RestoreFinding, RestoreOptions } from "./interface.ts";
import { containerFindings } from "./restored-containers.ts";

export interface CheckedCheckpoint {
  readonly findings: readonly RestoreFinding[];
  /** When its files are as they were written. */
  readonly opened: Awaited<ReturnType<CheckpointStore["open"]>> | undefined;
}

export async function findMismatches(
  runtime: RuntimeDeps,
  store: CheckpointStore,
  state: CheckpointState,
  options: RestoreOptions & { readonly isNameFree: boolean },
): Promise<CheckedCheckpoint> {
  const findings: RestoreFinding[] = [];
  const note = (what: string, fits: boolean, detail: string): void => void findings.push({ what, fits, detail });
  const { signal, name, hostname } = options;

  if (name !== undefined) {
    await look(note, "name", name, () => checkName(name, "the name"));
    if (!options.isNameFree) note("name", false, `there is a sandbox ${name} already`);
  }
  if (hostname !== undefined) await look(note, "hostname", hostname, () => checkHostname(hostname));
  const image = await openGuestImage(runtime.guestImages, state.guestImage).catch((error: unknown) =>
    BelljarError.from(error),
  );
  if (image instanceof BelljarError) note("guest image", false, image.message);
  else note("guest image", true, state.guestImage.slice(0, 12));

  const opened = await store.open(state.id, signal).catch((error: unknown) => BelljarError.from(error));
  if (opened instanceof BelljarError) note("files", false, opened.message);
  else note("files", true, `${state.files.length} files, as they were written`);

  if (!(image instanceof BelljarError) && !(opened instanceof BelljarError) && opened.snapshot.state.vm !== undefined) {
    const config = { ...savedConfig(opened.snapshot.state.vm), id: "any", runDir: "/any", boot: bootOf(image) };
    const here = await runtime.hypervisor.traits(config).catch((error: unknown) => BelljarError.from(error));
    if (here instanceof BelljarError) note("hypervisor", false, here.message);
    else compare(state.traits, here, note);
    const { acceleration } = state.traits;
    const { network, ports } = options;
    const { settings } = opened.snapshot.state;
    const mode = network?.mode ?? settings.network?.mode ?? "none";
    await look(note, "network", mode, () => copiedNetwork(settings.network, { network, ports }));
    await look(note, "acceleration", acceleration, () => runtime.acceleration.resolve(acceleration, signal));
  }
  if (!(opened instanceof BelljarError)) findings.push(...containerFindings(opened.snapshot.state, options));
  const carried = opened instanceof BelljarError ? [] : opened.snapshot.layers.map((path) => basename(path));
  for (const path of state.needs) {
    const places = [path, join(runtime.rootDir, "images/layers", basename(path))];
    const isThere = carried.includes(basename(path)) || (await Promise.all(places.map(canRead))).includes(true);
    note("layer", isThere, isThere ? basename(path) : `${path} is not here`);
  }
  return { findings, opened: opened instanceof BelljarError ? undefined : opened };
}

function compare(
  saved: MachineTraits,
  here: MachineTraits,
  note: (what: string, fits: boolean, detail: string) => void,
): void {
  const same = (what: string, wanted: string, found: string): void => {
    note(what, wanted === found, wanted === found ? found : `${wanted} is wanted, ${found} is here`);
  };
  same("hypervisor", saved.hypervisor, here.hypervisor);
  same("machine", saved.machine, here.machine);
  if (saved.commandLine !== here.commandLine) {
    note("devices", false, "the virtual machine is built in another way than the one that was saved");
  }
  const features = new Set(here.cpuFeatures);
  const missing = saved.cpuFeatures.filter((word) => !features.has(word));
  note(
    "cpu",
    missing.length === 0,
    missing.length === 0 ? "has all that the guest has seen" : `lacks ${missing.join(", ")}`,
  );
}

async function canRead(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function look(
  note: (what: string, fits: boolean, detail: string) => void,
  what: string,
  detail: string,
  work: () => unknown,
): Promise<void> {
  try {
    await work();
    note(what, true, detail);
  } catch (error) {
    note(what, false, BelljarError.from(error).message);
  }
}
