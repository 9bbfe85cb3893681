/** The containers that a restore is given: which of the checkpoint's each of them is, and how their specifications differ. */
import { BelljarError, decodeField } from "../base/index.ts";
import { CONTAINER_ID, type ContainerState, compareSpec } from "../container/index.ts";
import type { SandboxState } from "../sandbox/index.ts";
import type { RestoredContainer, RestoreFinding, RestoreOptions, SpecValidation } from "./interface.ts";

type State = Pick<SandboxState<ContainerState>, "containers">;

export const specValidations = ["enforce", "warn", "ignore"] as const satisfies readonly SpecValidation[];

/** @throws BelljarError `INVALID_ARGUMENT`, `CONTAINER_EXISTS` for a second one of a name or an id */
export function checkGiven(given: readonly RestoredContainer[]): void {
  for (const [index, { name, id }] of given.entries()) {
    if (id !== undefined && !CONTAINER_ID.test(id)) {
      throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(id.slice(0, 80))} is not the id of a container`, {
        remedy: "Use at most 64 letters, digits, dashes, dots and underscores.",
      });
    }
    for (const other of given.slice(0, index)) refuseSecond({ name, id }, other);
  }
}

/** @throws BelljarError `CONTAINER_EXISTS` */
export function refuseSecond(container: RestoredContainer, other: RestoredContainer): void {
  const { name, id } = container;
  if (name === other.name) {
    throw new BelljarError("CONTAINER_EXISTS", `the container ${name} was given already`, { facts: { name } });
  }
  if (id === undefined || id !== other.id) return;
  throw new BelljarError("CONTAINER_EXISTS", `the id ${id} belongs to the container ${other.name} already`, {
    facts: { id, name: other.name },
  });
}

/** By the id that a container has in the checkpoint, the one that it is to have; those that keep theirs are left out. */
export function newIds({ containers }: State, given: readonly RestoredContainer[] = []): ReadonlyMap<string, string> {
  const ids = new Map<string, string>();
  for (const { id, name } of containers) {
    const wanted = given.find((each) => each.name === name)?.id;
    if (wanted !== undefined && wanted !== id) ids.set(id, wanted);
  }
  return ids;
}

/** What does not fit, and with `warn` also what fits all the same. @throws BelljarError `INVALID_ARGUMENT` for what is no specification */
export function containerFindings(
  { containers }: State,
  { containers: given = [], specValidation = "enforce" }: RestoreOptions,
): readonly RestoreFinding[] {
  checkGiven(given);
  if (!specValidations.includes(specValidation)) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      `${JSON.stringify(specValidation)} is no way to compare specifications`,
      {
        remedy: `Use one of ${specValidations.join(", ")}.`,
      },
    );
  }
  return given.flatMap((wanted): readonly RestoreFinding[] => {
    const { name, id } = wanted;
    const container = containers.find((each) => each.name === name);
    if (container === undefined) return [{ what: "container", fits: false, detail: unknownName(name, containers) }];
    const taken = containers.find((each) => each.name !== name && each.id === id && !isRenamed(each.name, given));
    const idFinding = { what: "container", fits: taken === undefined, detail: taken ? `${id} is ${taken.name}` : name };
    return [idFinding, ...specFindings(container, wanted, specValidation)];
  });
}

export function unknownName(name: string, containers: readonly { readonly name: string }[]): string {
  const names = containers.map((each) => each.name).join(", ");
  return `the checkpoint has no container ${JSON.stringify(name.slice(0, 80))}; it has ${names}`;
}

function isRenamed(name: string, given: readonly RestoredContainer[]): boolean {
  return given.some((each) => each.name === name && each.id !== undefined);
}

function specFindings(
  container: ContainerState,
  { name, spec }: RestoredContainer,
  validation: SpecValidation,
): readonly RestoreFinding[] {
  if (spec === undefined) return [];
  const field = decodeField(spec, `the specification of ${name}`, "INVALID_ARGUMENT");
  const differences = compareSpec(container, field);
  if (validation === "ignore") return [];
  return differences.map(({ what, mayDiffer, saved, given }) => ({
    what: "specification",
    fits: mayDiffer || validation === "warn",
    detail: `${name}: ${what} was ${saved}, and is ${given}${mayDiffer ? ", without effect on what runs" : ""}`,
  }));
}
