/** What callers are told of checkpoints, and what a checkpoint says of itself. */
import { BelljarError, VERSION } from "../base/index.ts";
import { type Captured, type CheckpointState, checkpointDigest } from "../checkpoint/index.ts";
import { bootOf, savedConfig } from "../sandbox/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import { openGuestImage } from "./guest-image.ts";
import type { CheckpointInfo } from "./interface.ts";

type About = Omit<CheckpointState, "devicesAt" | "devicesBytes" | "disks" | "files" | "logs">;

export interface CheckpointWish {
  readonly id: string;
  readonly name: string;
  readonly isTemplate?: boolean;
  readonly trail?: boolean;
}

export async function aboutCheckpoint(
  runtime: RuntimeDeps,
  { id, name, isTemplate, trail }: CheckpointWish,
  { snapshot, times }: Captured,
): Promise<About> {
  const { state, memory } = snapshot;
  const { vm } = state;
  if (vm === undefined) throw new BelljarError("INTERNAL", "a snapshot without a VM");
  const image = await openGuestImage(runtime.guestImages, state.guestImage);
  const frozen = new Set(snapshot.disks.map(({ serial }) => serial));
  const others = state.containers.flatMap(({ disks }) => disks.filter(({ serial }) => !frozen.has(serial)));
  return {
    id,
    name,
    createdAtMs: runtime.clock.nowMs(),
    version: VERSION,
    source: { id: state.id, name: state.name, generation: state.generation },
    state: state.state === "paused" ? "paused" : "running",
    image: state.image,
    containers: state.containers.map((each) => ({ id: each.id, name: each.name, image: each.image })),
    memoryMib: vm.memoryMib + (vm.pluggedMemoryMib ?? 0),
    cpus: vm.cpus + (vm.pluggedCpus ?? 0),
    traits: await runtime.hypervisor.traits({ ...savedConfig(vm), id: "any", runDir: "/any", boot: bootOf(image) }),
    guestImage: state.guestImage,
    ...(memory?.template === undefined ? {} : { template: memory.template }),
    ...(isTemplate === true ? { isTemplate } : {}),
    ...(snapshot.compression === undefined ? {} : { compression: snapshot.compression }),
    ...(trail === true ? { trail } : {}),
    ...(snapshot.stoppedAtMs === undefined ? {} : { stoppedAtMs: snapshot.stoppedAtMs }),
    pauseMs: times.pauseMs,
    frozenMs: times.frozenMs,
    needs: [...new Set(others.map(({ path }) => path))],
  };
}

/** @param memoryBytes on the host, of a template */
export function checkpointInfo(state: CheckpointState, disksBytes: number, memoryBytes?: number): CheckpointInfo {
  const { id, name, createdAtMs, source, image, containers, memoryMib, cpus, traits, template, devicesBytes } = state;
  const { pauseMs, frozenMs, files, trail } = state;
  return {
    id,
    name,
    createdAtMs,
    source,
    state: state.state,
    image,
    containers,
    memoryMib,
    cpus,
    acceleration: traits.acceleration,
    hypervisor: traits.hypervisor,
    template,
    ...(trail === true ? { trail } : {}),
    ...(state.isTemplate === true ? { isTemplate: true } : {}),
    ...(state.compression === undefined ? {} : { compression: state.compression }),
    digest: checkpointDigest(state),
    pagesBytes: memoryBytes ?? files.find(({ path }) => path === "pages.img")?.sizeBytes ?? 0,
    devicesBytes,
    disksBytes,
    pauseMs,
    frozenMs,
  };
}

export function unreadableCheckpointInfo(id: string, error: BelljarError): CheckpointInfo {
  return {
    id,
    name: id,
    createdAtMs: 0,
    source: { id: "", name: "", generation: 0 },
    state: "running",
    image: "",
    containers: [],
    memoryMib: 0,
    cpus: 0,
    acceleration: "tcg",
    hypervisor: "",
    digest: "",
    pagesBytes: 0,
    devicesBytes: 0,
    disksBytes: 0,
    pauseMs: 0,
    frozenMs: 0,
    problem: error.message,
  };
}
