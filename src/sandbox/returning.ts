/**
 * How a copy of a sandbox comes back: what it is told, and what the guest's wake program does for it before the agent there has come to
 * itself. What the guest plans is the guest's: bounded, and carried back to it alone.
 */
import { BelljarError, type Decode, type Field, standstillLimits } from "../base/index.ts";
import {
  type FreezeResponse,
  type PlannedFile,
  type PlannedWake,
  WAKE_MESSAGE_BYTES_MAX,
  type WakeStep,
} from "../protocol/index.ts";
import { decodePlannedInterfaces, readPlannedInterfaces } from "./planned-interfaces.ts";

/** What has become of a copy. */
export interface CopyNews {
  readonly event: "restored" | "forked" | "resumed";
  readonly generation: number;
  /** Both as they were unless told. */
  readonly machineId?: string | undefined;
  readonly bootId?: string | undefined;
  readonly endProcesses: boolean;
}

/** It has been let run, and its agent was not told yet. */
export interface ReturningState extends CopyNews {
  /** The containers were told by the wake program, with this time in milliseconds since the epoch, and run. */
  readonly toldAtMs?: number | undefined;
  /** The file by which its agent was told to stand still, and is told to go on. */
  readonly rest?: string | undefined;
}

/** How a copy may come back without its agent. */
export interface WayBack {
  readonly plan: PlannedWake;
  /** Of its network, which is as its source's without any. */
  readonly networkSteps: readonly WakeStep[];
  /** Its agent stands still from then on, where the guest knows how. */
  readonly rests: boolean;
}

/** What stands for the words in planned files; those that are undefined leave their files as they are. */
export interface WakeWords {
  readonly event: string;
  readonly generation: string;
  readonly sandbox: string;
  readonly time: string;
  readonly "machine-id": string | undefined;
  readonly "boot-id": string | undefined;
  readonly hostname: string;
  readonly hosts: string;
  readonly dns: string | undefined;
}

const { wakeFilesMax, wakePathMaxLength, wakeTextMaxLength, descendantsMax } = standstillLimits;
const WORD = /\{([a-z-]+)\}/g;

/** What the guest says when it stands still. Undefined when its agent is needed, or when it plans more than it may. */
export function readWakePlan({ wake }: Pick<FreezeResponse, "wake">): PlannedWake | undefined {
  if (wake?.thaw === undefined || wake.files.length > wakeFilesMax || wake.furtherPids.length > descendantsMax) {
    return undefined;
  }
  if (wake.furtherPids.some((pid) => pid < 1)) return undefined;
  const plan = (file: { readonly path: string; readonly text: string }): PlannedFile => ({
    path: file.path,
    text: file.text,
  });
  const files = wake.files.map(plan);
  const thaw = plan(wake.thaw);
  if (![...files, thaw].every(isPlannable)) return undefined;
  const interfaces = readPlannedInterfaces(wake.interfaces);
  const rest = wake.rest === undefined ? undefined : plan(wake.rest);
  if (rest !== undefined && !isPlannable(rest)) return undefined;
  return { files, furtherPids: [...wake.furtherPids], thaw, interfaces, disconnects: wake.disconnects, rest };
}

function isPlannable({ path, text }: PlannedFile): boolean {
  return path.startsWith("/") && Buffer.byteLength(path) <= wakePathMaxLength && text.length <= wakeTextMaxLength;
}

/**
 * The agent rests first, since it would wake to nothing of use. Then comes the network: should the kernel refuse something of it, nobody in
 * the copy was told anything. The thaw is the last.
 * @throws BelljarError `INVALID_ARGUMENT` for a word that nobody knows, and for more text than there is room for: a short plan can ask for
 * a long word as often as it likes
 */
export function wakeSteps(
  { plan, networkSteps, rests }: WayBack,
  words: WakeWords,
  endProcesses: boolean,
): readonly WakeStep[] {
  const known = new Map<string, string | undefined>(Object.entries(words));
  const steps: WakeStep[] = rests && plan.rest !== undefined ? [{ kind: "write", ...plan.rest }] : [];
  steps.push(...networkSteps.filter(({ kind }) => kind !== "disconnect" || plan.disconnects === true));
  let room = WAKE_MESSAGE_BYTES_MAX;
  for (const { path, text } of plan.files) {
    const filled = fill(text, known, room);
    if (filled === undefined) continue;
    room -= filled.length;
    steps.push({ kind: "write", path, text: filled });
  }
  if (endProcesses) steps.push(...plan.furtherPids.map((pid): WakeStep => ({ kind: "kill", pid })));
  steps.push({ kind: "write", path: plan.thaw.path, text: plan.thaw.text });
  return steps;
}

/** Undefined when one of its words has no value. */
function fill(text: string, known: ReadonlyMap<string, string | undefined>, room: number): string | undefined {
  let isKnown = true;
  let left = room - text.length;
  const filled = text.replace(WORD, (_, word: string) => {
    if (!known.has(word)) throw new BelljarError("INVALID_ARGUMENT", `the guest asks for an unknown word ${word}`);
    const value = known.get(word);
    isKnown &&= value !== undefined;
    left -= value?.length ?? 0;
    if (left < 0) throw new BelljarError("INVALID_ARGUMENT", "the guest plans more text than a copy is sent");
    return value ?? "";
  });
  return isKnown ? filled : undefined;
}

export function decodeReturning(field: Field): ReturningState {
  const id = (name: string): string | undefined =>
    field.field(name).optional((text) => text.string({ pattern: /^[0-9a-f-]{32,36}$/ }));
  return {
    event: field.field("event").oneOf(["restored", "forked", "resumed"]),
    generation: field.field("generation").integer({ min: 0 }),
    machineId: id("machineId"),
    bootId: id("bootId"),
    endProcesses: field.field("endProcesses").boolean(),
    toldAtMs: field.field("toldAtMs").optional((time) => time.integer({ min: 1 })),
    rest: field.field("rest").optional(decodePath),
  };
}

export const decodeWakePlan: Decode<PlannedWake> = (field) => ({
  files: field.field("files").array(decodeFile, { maxItems: wakeFilesMax }),
  furtherPids: field.field("furtherPids").array((pid) => pid.integer({ min: 1 }), { maxItems: descendantsMax }),
  thaw: decodeFile(field.field("thaw")),
  // Those that were saved before a copy could have another network than its source say none.
  interfaces: field.field("interfaces").optional(decodePlannedInterfaces),
  disconnects: field.field("disconnects").optional((word) => word.boolean()),
  rest: field.field("rest").optional(decodeFile),
});

function decodePath(field: Field): string {
  return field.string({ maxLength: wakePathMaxLength, pattern: /^\// });
}

function decodeFile(field: Field): PlannedFile {
  return {
    path: decodePath(field.field("path")),
    text: field.field("text").string({ maxLength: wakeTextMaxLength }),
  };
}
