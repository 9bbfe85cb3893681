/** What `checkpoints/<id>/manifest.json` holds: written last, so that a checkpoint that has one is whole. */
import { type Field, isId, sandboxLimits } from "../base/index.ts";
import type { MachineTraits } from "../hypervisor/interface.ts";
import type { StateSchema } from "../store/index.ts";

export interface CheckpointState {
  readonly id: string;
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** Version of the program that wrote it. */
  readonly version: string;
  readonly source: { readonly id: string; readonly name: string; readonly generation: number };
  readonly state: "running" | "paused";
  readonly image: string;
  readonly containers: readonly { readonly id: string; readonly name: string; readonly image: string }[];
  readonly memoryMib: number;
  readonly cpus: number;
  readonly traits: MachineTraits;
  /** Digest of the guest image that the VM booted. */
  readonly guestImage: string;
  readonly template?: string | undefined;
  /** How its pages are packed. */
  readonly compression?: "zstd" | undefined;
  /** Its memory is one file that all copies share: sandboxes are started from it. */
  readonly isTemplate?: boolean | undefined;
  /** It was taken by itself, and goes by itself. */
  readonly trail?: boolean | undefined;
  /** The checkpoint that its source was restored from. */
  readonly parent?: string | undefined;
  /** When its guest's clock stood still, in milliseconds since the epoch; unknown of one that was paused before. */
  readonly stoppedAtMs?: number | undefined;
  readonly pauseMs: number;
  readonly frozenMs: number;
  /** Where in `checkpoint.img` the device state begins. */
  readonly devicesAt: number;
  readonly devicesBytes: number;
  readonly disks: readonly CheckpointDisk[];
  readonly logs: readonly CheckpointLog[];
  /** Files of others that its containers need: layers of images, disks that are only read. */
  readonly needs: readonly string[];
  /** All but this one, by their path in the checkpoint. */
  readonly files: readonly CheckpointFile[];
}

export interface CheckpointDisk {
  readonly serial: string;
  /** Names in `disks/`, the last one first. */
  readonly files: readonly string[];
}

export interface CheckpointLog {
  readonly containerId: string;
  readonly starts: number;
  /** Names in `logs/<container>/<starts>/`. */
  readonly files: readonly string[];
}

export interface CheckpointFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** As `FileDigests` makes it. */
  readonly digest: string;
}

const FILES_MAX = 100_000;
const PATH = /^(?:[a-zA-Z0-9_-][a-zA-Z0-9._-]*\/){0,4}[a-zA-Z0-9_-][a-zA-Z0-9._-]*$/;
const NAME = /^[a-zA-Z0-9_-][a-zA-Z0-9._-]*$/;
const DIGEST = /^[0-9a-f]{64}$/;

export const checkpointSchema: StateSchema<CheckpointState> = {
  kind: "checkpoint",
  migrations: [],
  decode: (field) => {
    const id = field.field("id").string({ maxLength: 64 });
    if (!isId(id)) throw field.field("id").expected("an id");
    const whole = (name: string): number => field.field(name).integer({ min: 0 });
    const times = (name: string): number => field.field(name).number({ min: 0 });
    const digest = (name: string): string | undefined =>
      field.field(name).optional((value) => value.string({ pattern: DIGEST }));
    return {
      id,
      name: field.field("name").string({ minLength: 1, maxLength: 63 }),
      createdAtMs: whole("createdAtMs"),
      version: field.field("version").string({ maxLength: 64 }),
      source: {
        id: field.field("source").field("id").string({ maxLength: 64 }),
        name: field.field("source").field("name").string({ maxLength: 63 }),
        generation: field.field("source").field("generation").integer({ min: 0 }),
      },
      state: field.field("state").oneOf(["running", "paused"]),
      image: field.field("image").string({ maxLength: 4_096 }),
      containers: field.field("containers").array(
        (each) => ({
          id: each.field("id").string({ maxLength: 64 }),
          name: each.field("name").string({ maxLength: 63 }),
          image: each.field("image").string({ maxLength: 4_096 }),
        }),
        { maxItems: sandboxLimits.containersMax },
      ),
      memoryMib: whole("memoryMib"),
      cpus: whole("cpus"),
      traits: decodeTraits(field.field("traits")),
      guestImage: field.field("guestImage").string({ maxLength: 128 }),
      template: digest("template"),
      compression: field.field("compression").optional((word) => word.oneOf(["zstd"])),
      isTemplate: field.field("isTemplate").optional((value) => value.boolean()),
      trail: field.field("trail").optional((value) => value.boolean()),
      parent: field.field("parent").optional((value) => value.string({ maxLength: 64 })),
      stoppedAtMs: field.field("stoppedAtMs").optional((value) => value.number({ min: 0 })),
      pauseMs: times("pauseMs"),
      frozenMs: times("frozenMs"),
      devicesAt: whole("devicesAt"),
      devicesBytes: whole("devicesBytes"),
      disks: field.field("disks").array(
        (each) => ({
          serial: each.field("serial").string({ pattern: /^[a-z0-9-]{1,20}$/ }),
          files: each.field("files").array(decodeName, { maxItems: FILES_MAX }),
        }),
        { maxItems: FILES_MAX },
      ),
      logs: field.field("logs").array(
        (each) => ({
          containerId: each.field("containerId").string({ maxLength: 64, pattern: NAME }),
          starts: each.field("starts").integer({ min: 0 }),
          files: each.field("files").array(decodeName, { maxItems: FILES_MAX }),
        }),
        { maxItems: FILES_MAX },
      ),
      needs: field.field("needs").array((path) => path.string({ maxLength: 4_096 }), { maxItems: FILES_MAX }),
      files: field.field("files").array(
        (each) => ({
          path: each.field("path").string({ maxLength: 512, pattern: PATH }),
          sizeBytes: each.field("sizeBytes").integer({ min: 0 }),
          digest: each.field("digest").string({ pattern: DIGEST }),
        }),
        { maxItems: FILES_MAX },
      ),
    };
  },
};

function decodeName(field: Field): string {
  return field.string({ maxLength: 255, pattern: NAME });
}

function decodeTraits(field: Field): MachineTraits {
  return {
    hypervisor: field.field("hypervisor").string({ maxLength: 128 }),
    machine: field.field("machine").string({ maxLength: 64 }),
    acceleration: field.field("acceleration").oneOf(["kvm", "tcg"]),
    cpuFeatures: field.field("cpuFeatures").array((word) => word.string({ maxLength: 64 }), { maxItems: 4_096 }),
    commandLine: field.field("commandLine").string({ pattern: DIGEST }),
  };
}
