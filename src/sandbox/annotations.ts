/**
 * Annotations: free for everybody except under `io.belljar.`, where each one means something and any other is refused by name:
 * a mistyped one that was silently kept would silently do nothing.
 */
import { BelljarError, sandboxLimits } from "../base/index.ts";

export type Annotations = Readonly<Record<string, string>>;

const PREFIX = "io.belljar.";
const MEMORY_MIB = `${PREFIX}sandbox.memory-mib`;
const CPUS = `${PREFIX}sandbox.cpus`;
const SWAPPINESS = `${PREFIX}container.swappiness`;
const SWAP_BYTES = `${PREFIX}container.swap-bytes`;

/** Name to largest value; all are integers, from the smallest on. */
const KNOWN: ReadonlyMap<string, { readonly min: number; readonly max: number }> = new Map([
  [MEMORY_MIB, { min: sandboxLimits.memoryMinMib, max: sandboxLimits.memoryMaxMib }],
  [CPUS, { min: 1, max: sandboxLimits.cpusMax }],
  [SWAPPINESS, { min: 0, max: 200 }],
  [SWAP_BYTES, { min: 1_048_576, max: sandboxLimits.swapMaxBytes }],
]);

/** The kernel's limit for the names of things people annotate is nowhere; Kubernetes' is this, prefix included. */
const NAME_MAX_LENGTH = 317;

/** @throws BelljarError `INVALID_ARGUMENT`, naming the annotation */
export function checkAnnotations(annotations: Annotations): Annotations {
  const names = Object.keys(annotations);
  if (names.length > sandboxLimits.annotationsMax) {
    throw new BelljarError("INVALID_ARGUMENT", `${names.length} annotations are too many`, {
      facts: { max: sandboxLimits.annotationsMax },
    });
  }
  for (const name of names) {
    const value = annotations[name] ?? "";
    const isWell = name.isWellFormed() && value.isWellFormed() && !name.includes("\0") && !value.includes("\0");
    if (!isWell || name === "" || name.length > NAME_MAX_LENGTH || value.length > sandboxLimits.annotationMaxLength) {
      throw new BelljarError("INVALID_ARGUMENT", `the annotation ${JSON.stringify(name.slice(0, 80))} cannot be kept`, {
        facts: { nameMaxLength: NAME_MAX_LENGTH, valueMaxLength: sandboxLimits.annotationMaxLength },
        remedy: `A name has 1 to ${NAME_MAX_LENGTH} characters, a value ${sandboxLimits.annotationMaxLength} at most, of well-formed text without NUL.`,
      });
    }
    if (name.startsWith(PREFIX)) readNumber(name, value);
  }
  return { ...annotations };
}

/**
 * Those that count when a VM or container is made, and would be without effect afterwards.
 * @throws BelljarError `INVALID_ARGUMENT`
 */
export function checkLateAnnotations(annotations: Annotations): Annotations {
  const checked = checkAnnotations(annotations);
  const late = Object.keys(checked).find((name) => name.startsWith(PREFIX));
  if (late === undefined) return checked;
  throw new BelljarError("INVALID_ARGUMENT", `the annotation ${late} counts only when it is given at creation`);
}

export function sandboxAnnotations(annotations: Annotations): { memoryMib?: number; cpus?: number } {
  const memoryMib = numberOf(annotations, MEMORY_MIB);
  const cpus = numberOf(annotations, CPUS);
  return { ...(memoryMib === undefined ? {} : { memoryMib }), ...(cpus === undefined ? {} : { cpus }) };
}

export interface SwapSettings {
  readonly swappiness?: number;
  readonly swapBytes?: number;
}

/** What the container's own annotations say, or else its sandbox's. */
export function swapAnnotations(container: Annotations, sandbox: Annotations): SwapSettings {
  const swappiness = numberOf(container, SWAPPINESS) ?? numberOf(sandbox, SWAPPINESS);
  const swapBytes = numberOf(container, SWAP_BYTES) ?? numberOf(sandbox, SWAP_BYTES);
  return { ...(swappiness === undefined ? {} : { swappiness }), ...(swapBytes === undefined ? {} : { swapBytes }) };
}

function numberOf(annotations: Annotations, name: string): number | undefined {
  const value = annotations[name];
  return value === undefined ? undefined : readNumber(name, value);
}

function readNumber(name: string, value: string): number {
  const range = KNOWN.get(name);
  if (range === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", `there is no annotation ${name}`, {
      remedy: `Use ${[...KNOWN.keys()].join(", ")}, or a name outside of ${PREFIX}`,
    });
  }
  const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
  if (number >= range.min && number <= range.max) return number;
  throw new BelljarError(
    "INVALID_ARGUMENT",
    `the annotation ${name} has the value ${JSON.stringify(value.slice(0, 40))}`,
    {
      facts: { min: range.min, max: range.max },
      remedy: `Give a whole number from ${range.min} to ${range.max}.`,
    },
  );
}
