/** What an owner can be told, and the scripted operations that it performs on the sandbox `target`. */
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeField, type Field, parseJson, type Step } from "../../src/base/index.ts";
import type { Pool, Spares, Standbys, Templates } from "../../src/checkpoint/index.ts";
import type { MountConfig } from "../../src/container/index.ts";
import type { ImageStore } from "../../src/images/index.ts";
import type {
  Checkpoints,
  ContainerHandle,
  SandboxCreateConfig,
  Sandboxes,
  SandboxHandle,
  SandboxInfo,
  Volumes,
} from "../../src/runtime/index.ts";
import type { OwnerRoom } from "./owner-room.ts";

export const TARGET = "target";
export const SECOND = "second";

/** Name of the volume and of the image that nobody uses. */
const SPARE = "spare";
/** Sandboxes that are copies of the target, with their numbers. */
const COPY = "copy";
/** Annotation of a target: its kind. */
const KIND = "campaign.kind";
const STORAGE_STEP_BYTES = 64 * 2 ** 20;

/** Memory of the target's VM, and what it grows to. */
export const USUAL_MIB = 256;
export const GROWN_MIB = 384;

/** Prints consecutive numbers, a few each second. */
export const COUNTER = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 100000; done"];
/** The same as fast as it can. */
export const FLOOD = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); done"];

export const phases = ["before", "during", "after"] as const;
export type Phase = (typeof phases)[number];

export interface KillPoint {
  readonly step: string;
  /** Which of the steps of this name, from 1. */
  readonly occurrence: number;
  readonly phase: Phase;
}

export interface StepTold {
  readonly step: string;
  readonly phase: "before" | "after";
  readonly occurrence: number;
}

/** What the target is before an operation. */
export const bases = [
  ...(["none", "ready", "running", "paused", "stopped", "second ready", "second running"] as const),
  ...(["device", "served device", "grown", "second mounted", "spare volume", "spare image"] as const),
  // Without shared memory, so that it can be checkpointed; with a checkpoint of it.
  ...(["plain", "checkpoint", "hibernated"] as const),
  // No target, and no template of a booted guest; no target, and a pool of VMs that is empty, or has one.
  ...(["no template", "nothing waits", "a VM waits"] as const),
  // With a network, as one that takes a VM which waits.
  "networked",
  // VMMs that wait for forks, or copies that wait, of which there are none, or is one.
  ...(["no spare waits", "a spare waits", "no copy waits", "a copy waits"] as const),
] as const;
export type Base = (typeof bases)[number];

/** Only one whose memory no other program maps can be checkpointed, or be a copy of a template. */
const kinds = {
  shared: { vhostUser: true },
  plain: {},
  networked: { network: { mode: "user" } },
} as const satisfies Readonly<Record<string, Partial<SandboxCreateConfig>>>;
type Kind = keyof typeof kinds;

const kindOf: Partial<Record<Base, Kind>> = {
  plain: "plain",
  checkpoint: "plain",
  hibernated: "plain",
  networked: "networked",
  "no spare waits": "networked",
  "a spare waits": "networked",
  "no copy waits": "networked",
  "a copy waits": "networked",
};
/** With a checkpoint of the target. */
const checkpointed: readonly Base[] = ["checkpoint", "no copy waits", "a copy waits"];
const withoutTarget: readonly Base[] = ["none", "no template", "nothing waits", "a VM waits"];

export const operationNames = [
  "create",
  "make boot template",
  "fill pool",
  "take waiting VM",
  "fill spares",
  "take spare",
  "fill standbys",
  "take standby",
  "start",
  "restart",
  "exec",
  "pause",
  "resume",
  "stop",
  "delete",
  "create container",
  "start container",
  "stop container",
  "delete container",
  "mount container",
  "unmount container",
  "add device",
  "remove device",
  "add served device",
  "remove served device",
  "grow",
  "shrink",
  "grow storage",
  "create volume",
  "remove volume",
  "import image",
  "prune images",
  "checkpoint",
  "remove checkpoint",
  "build template",
  "restore",
  "fork",
  "hibernate",
  "wake",
  "rewind",
] as const;
export type OperationName = (typeof operationNames)[number];

export type Command =
  | { readonly do: "open" | "list" | "usage" | "release" }
  | { readonly do: "make witness"; readonly name: string; readonly command: readonly string[] }
  | { readonly do: "delete"; readonly sandbox: string }
  | { readonly do: "prepare"; readonly base: Base; readonly command: readonly string[] }
  | { readonly do: "operate"; readonly operation: OperationName; readonly kill: KillPoint | undefined }
  | { readonly do: "read"; readonly sandbox: string; readonly offset: string; readonly waitMs: number }
  | { readonly do: "load"; readonly sandbox: string; readonly loops: number }
  | { readonly do: "leftovers"; readonly sandbox: string }
  | { readonly do: "exec"; readonly sandbox: string; readonly command: readonly string[] };

export type Answer = Readonly<Record<string, unknown>>;

export function decodeCommand(line: string): Command {
  const field = parseJson(line, "command", "INVALID_ARGUMENT");
  const text = (name: string): string => field.field(name).string();
  const words = (name: string): string[] => field.field(name).array((word) => word.string());
  const name = field
    .field("do")
    .oneOf([
      ...(["open", "list", "usage", "release", "make witness", "delete"] as const),
      ...(["prepare", "operate", "read", "load", "leftovers", "exec"] as const),
    ]);
  switch (name) {
    case "make witness":
      return { do: name, name: text("name"), command: words("command") };
    case "delete":
      return { do: name, sandbox: text("sandbox") };
    case "prepare":
      return { do: name, base: field.field("base").oneOf(bases), command: words("command") };
    case "operate":
      return {
        do: name,
        operation: field.field("operation").oneOf(operationNames),
        kill: field.field("kill").optional(decodeKillPoint),
      };
    case "read":
      return { do: name, sandbox: text("sandbox"), offset: text("offset"), waitMs: field.field("waitMs").integer() };
    case "load":
      return { do: name, sandbox: text("sandbox"), loops: field.field("loops").integer() };
    case "leftovers":
      return { do: name, sandbox: text("sandbox") };
    case "exec":
      return { do: name, sandbox: text("sandbox"), command: words("command") };
    default:
      return { do: name };
  }
}

function decodeKillPoint(field: Field): KillPoint {
  return {
    step: field.field("step").string(),
    occurrence: field.field("occurrence").integer({ min: 1 }),
    phase: field.field("phase").oneOf(phases),
  };
}

/** Ids and random parts are left out, so that the same step has the same name in every run. */
export function stepName(message: unknown): { readonly step: string; readonly phase: Step["phase"] } {
  const field = decodeField(message, "step", "INTERNAL");
  const kind = field.field("kind").oneOf(["store", "qmp", "agent", "child", "host", "cgroup"]);
  const name = field
    .field("name")
    .string()
    .replace(/[0-9a-f]{12,}/g, "*");
  return { step: `${kind} ${name}`, phase: field.field("phase").oneOf(["before", "after"]) };
}

/** A volume, which stays; a disk of the container's own, which goes with it; and a copy of a file of the host. */
const MOUNTS: readonly MountConfig[] = [
  { type: "volume", source: "campaign", target: "/data", sizeBytes: 64 * 2 ** 20 },
  { type: "volume", target: "/own", sizeBytes: 64 * 2 ** 20 },
  { type: "bind", source: "/etc/passwd", target: "/etc/copied", readOnly: true, how: "copy" },
];

/** What an owner has of its root. */
export interface Owned {
  readonly sandboxes: Sandboxes;
  readonly volumes: Volumes;
  readonly images: ImageStore;
  readonly checkpoints: Checkpoints;
  readonly templates: Templates;
  readonly pool: OwnerRoom<Pool>;
  readonly spares: OwnerRoom<Spares>;
  readonly standbys: OwnerRoom<Standbys>;
}

type Operation = (owned: Owned) => Promise<void>;

const onTarget =
  (work: (target: SandboxHandle) => Promise<unknown>): Operation =>
  async ({ sandboxes }) =>
    void (await work(await sandboxes.get(TARGET)));

const onSecond = (work: (second: ContainerHandle) => Promise<unknown>): Operation =>
  onTarget(async (target) => work(await target.containers.get(SECOND)));

export const operations: Readonly<Record<OperationName, Operation>> = {
  create: async ({ sandboxes }) => void (await createTarget(sandboxes, COUNTER)),
  "make boot template": async ({ sandboxes }) => void (await createTarget(sandboxes, COUNTER, "plain")),
  "fill pool": async ({ sandboxes, pool }) => {
    await createTarget(sandboxes, COUNTER, "networked");
    await pool.fill();
  },
  "take waiting VM": async (owned) =>
    await owned.pool.take(owned, () => createTarget(owned.sandboxes, COUNTER, "networked")),
  "fill spares": async (owned) => {
    await forkOne(owned);
    await owned.spares.fill();
  },
  "take spare": async (owned) => await owned.spares.take(owned, () => forkOne(owned)),
  "fill standbys": async (owned) => {
    await restoreOne(owned);
    await owned.standbys.fill();
  },
  "take standby": async (owned) => await owned.standbys.take(owned, () => restoreOne(owned)),
  start: onTarget((target) => target.start()),
  restart: onTarget((target) => target.start()),
  exec: onTarget(async (target) => {
    const { exitCode, stdout } = await target.exec(["echo", "hello"]);
    if (exitCode !== 0 || stdout !== "hello\n") throw new Error(`exec answered ${exitCode} and ${stdout}`);
  }),
  pause: onTarget((target) => target.pause()),
  resume: onTarget((target) => target.resume()),
  stop: onTarget((target) => target.stop({ timeoutMs: 0 })),
  delete: onTarget((target) => target.delete()),
  "mount container": onTarget((target) =>
    target.containers.create({ image: "busybox", name: SECOND, command: COUNTER, mounts: MOUNTS }),
  ),
  "unmount container": onSecond((second) => second.delete()),
  "create container": onTarget((target) =>
    target.containers.create({ image: "busybox", name: SECOND, command: COUNTER }),
  ),
  "start container": onSecond((second) => second.start()),
  "stop container": onSecond((second) => second.stop({ timeoutMs: 0 })),
  "delete container": onSecond((second) => second.delete()),
  "add device": onTarget(async (target) => target.devices.add({ kind: "block", path: await deviceFile() })),
  "remove device": onTarget(async (target) => target.devices.remove(await deviceFile())),
  "add served device": onTarget(async (target) =>
    target.devices.add({ kind: "vhost-user-blk", path: await deviceFile() }),
  ),
  "remove served device": onTarget(async (target) => target.devices.remove(await deviceFile())),
  grow: onTarget((target) => target.update({ memoryMib: GROWN_MIB })),
  shrink: onTarget((target) => target.update({ memoryMib: USUAL_MIB })),
  // Each time by as much: what was asked for before a kill is there after it, or is not.
  "grow storage": onSecond(async (second) => {
    const { storage } = await second.info();
    await second.growStorage((storage?.sizeBytes ?? 0) + STORAGE_STEP_BYTES);
  }),
  "create volume": async ({ volumes }) => void (await volumes.create({ name: SPARE, sizeBytes: 64 * 2 ** 20 })),
  "remove volume": ({ volumes }) => volumes.remove(SPARE),
  "import image": importSpare,
  "prune images": async ({ images }) => void (await images.collectGarbage({ unusedImages: true })),
  checkpoint: onTarget((target) => target.checkpoint({ name: SPARE })),
  "build template": onTarget((target) => target.checkpoint({ name: SPARE, asTemplate: true })),
  "remove checkpoint": async ({ checkpoints }) => void (await checkpoints.remove(SPARE)),
  restore: async (owned) => void (await restoreOne(owned)),
  fork: onTarget((target) => target.fork({ count: 2, name: `${COPY}{n}` })),
  hibernate: onTarget((target) => target.hibernate()),
  wake: onTarget((target) => target.wake()),
  rewind: onTarget((target) => target.rewind()),
};

async function forkOne({ sandboxes }: Owned): Promise<SandboxHandle | undefined> {
  return (await (await sandboxes.get(TARGET)).fork({ count: 1, name: `${COPY}1` }))[0];
}

async function restoreOne({ checkpoints }: Owned): Promise<SandboxHandle> {
  return await checkpoints.restore(SPARE, { name: `${COPY}1` });
}

async function importSpare({ images }: Owned): Promise<void> {
  const dir = beside("spare-root");
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "file"), "spare\n");
  await images.import(dir, { name: SPARE, kind: "rootfs" });
}

function createTarget(
  sandboxes: Sandboxes,
  command: readonly string[],
  kind: Kind = "shared",
  start = true,
): Promise<SandboxHandle> {
  const config = { image: "busybox", name: TARGET, annotations: { [KIND]: kind }, container: { command } };
  return sandboxes.create({ ...config, ...kinds[kind] }, { start });
}

async function findTarget(sandboxes: Sandboxes): Promise<SandboxInfo | undefined> {
  return (await sandboxes.list()).find(({ name }) => name === TARGET);
}

/** Brings the target from whatever it is to a base. */
export async function prepare(owned: Owned, base: Base, command: readonly string[]): Promise<void> {
  const { sandboxes } = owned;
  let info = await findTarget(sandboxes);
  await removeCopies(owned, base);
  const kind = kindOf[base] ?? "shared";
  const isFresh = withoutTarget.includes(base) || base === "ready";
  const isOther = info !== undefined && info.annotations[KIND] !== kind;
  if (info !== undefined && ((isFresh && info.state !== base) || isOther)) {
    await (await sandboxes.get(TARGET)).delete({ force: true });
    info = undefined;
  }
  await preparePool(owned, base);
  if (withoutTarget.includes(base)) return;
  if (info === undefined) await createTarget(sandboxes, command, kind, base !== "ready");
  if (base === "ready") return;
  const target = await sandboxes.get(TARGET);
  if (info?.state === base && (base === "paused" || base === "stopped")) return;
  if (info?.state === "paused" || info?.state === "hibernated") await target.resume();
  if (info?.state === "ready" || info?.state === "stopped") await target.start();
  if ((await target.main.info()).state === "stopped") await target.main.start();
  await releaseLeftovers(target.main);
  await prepareSecond(target, base);
  await prepareDevice(target, base);
  await prepareSpare(owned, base);
  const memoryMib = base === "grown" ? GROWN_MIB : USUAL_MIB;
  if ((await target.info()).memoryMib !== memoryMib) await target.update({ memoryMib });
  if (checkpointed.includes(base) && (await owned.checkpoints.list()).length === 0) await operations.checkpoint(owned);
  await prepareCopies(owned, base);
  if (base === "paused") await target.pause();
  if (base === "hibernated") await target.hibernate();
  if (base === "stopped") await target.stop({ timeoutMs: 0 });
}

/** There is no target yet where these bases are asked for. */
async function preparePool({ sandboxes, templates, pool }: Owned, base: Base): Promise<void> {
  const made = await templates.list();
  if (base === "no template") for (const { digest } of made) await templates.remove(digest);
  if (base === "nothing waits" && made.length === 0) {
    await (await createTarget(sandboxes, COUNTER, "plain")).delete({ force: true });
  }
  if (base === "nothing waits") return await pool.empty();
  if (base !== "a VM waits") return await pool.close();
  if ((await pool.waiting({ sandboxes })) !== undefined) return;
  await pool.empty();
  const first = await createTarget(sandboxes, COUNTER, "networked");
  await pool.fill();
  await first.delete({ force: true });
}

/** What waits for copies of the target. */
async function prepareCopies(owned: Owned, base: Base): Promise<void> {
  for (const [room, which, copy] of [
    [owned.spares, "spare", forkOne],
    [owned.standbys, "copy", restoreOne],
  ] as const) {
    if (base === `a ${which} waits`) {
      if ((await room.waiting(owned)) !== undefined) continue;
      await room.empty();
      await copy(owned);
      await room.fill();
      await removeAllCopies(owned);
    } else if (base === `no ${which} waits`) await room.empty();
    else await room.close();
  }
}

async function removeAllCopies({ sandboxes }: Owned): Promise<void> {
  for (const { id, name } of await sandboxes.list()) {
    if (name.startsWith(COPY)) await (await sandboxes.get(id)).delete({ force: true });
  }
}

async function removeCopies(owned: Owned, base: Base): Promise<void> {
  const { checkpoints } = owned;
  await removeAllCopies(owned);
  if (!checkpointed.includes(base)) for (const { id } of await checkpoints.list()) await checkpoints.remove(id);
}

/** Commands whose caller has died: they are kept until somebody releases them. */
async function releaseLeftovers(container: ContainerHandle): Promise<void> {
  for (const { id } of await container.processes()) {
    if (id === "") continue;
    const child = await container.process(id);
    await child.status;
    await child.release();
  }
}

/** Not the root's. */
function beside(name: string): string {
  return join(process.argv[2] ?? "", "..", name);
}

async function prepareSpare(owned: Owned, base: Base): Promise<void> {
  const { volumes, images } = owned;
  const hasVolume = (await volumes.list()).some(({ name }) => name === SPARE);
  if (hasVolume && base !== "spare volume") await volumes.remove(SPARE);
  if (!hasVolume && base === "spare volume") await operations["create volume"](owned);
  const hasImage = (await images.list()).some(({ name }) => name === `${SPARE}:latest`);
  if (hasImage && base !== "spare image") await images.remove(SPARE);
  if (!hasImage && base === "spare image") await importSpare(owned);
}

/** The file that is plugged as a device. */
async function deviceFile(): Promise<string> {
  const path = beside("device.img");
  await using file = await open(path, "a");
  await file.truncate(1024 * 1024);
  return path;
}

async function prepareDevice(target: SandboxHandle, base: Base): Promise<void> {
  const kind = base === "device" ? "block" : base === "served device" ? "vhost-user-blk" : undefined;
  const found = (await target.devices.list()).find(({ isContainers }) => !isContainers);
  if (found?.kind === kind) return;
  if (found !== undefined) await target.devices.remove(found.id);
  if (kind !== undefined) await target.devices.add({ kind, path: await deviceFile() });
}

async function prepareSecond(target: SandboxHandle, base: Base): Promise<void> {
  const found = (await target.containers.list()).find(({ name }) => name === SECOND);
  const isMounted = base === "second mounted";
  const wanted = base === "second ready" || isMounted ? "ready" : base === "second running" ? "running" : undefined;
  if (found?.state === wanted && (found === undefined || found.mounts.length > 0 === isMounted)) return;
  if (found !== undefined) await (await target.containers.get(SECOND)).delete({ force: true });
  if (wanted === undefined) return;
  const mounts = isMounted ? MOUNTS : [];
  const second = await target.containers.create({ image: "busybox", name: SECOND, command: COUNTER, mounts });
  if (wanted === "running") await second.start();
}
