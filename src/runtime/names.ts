/** How things are named: by id, by name, or by the beginning of an id. */
import { BelljarError, type ErrorReason } from "../base/index.ts";

export interface Named {
  readonly id: string;
  readonly name: string;
}

/** What may be a name or a part of an id; anything else is nowhere, and no file is looked at for it. */
const POSSIBLE = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;

/** @throws BelljarError `notFound`, or `ambiguous` when several ids begin so */
export function findNamed<T extends Named>(
  things: Iterable<T>,
  nameOrId: string,
  what: "sandbox" | "container" | "checkpoint" | "template",
  notFound: ErrorReason,
  ambiguous: ErrorReason = "SANDBOX_AMBIGUOUS",
): T {
  const all = [...things];
  const exact = all.find((thing) => thing.id === nameOrId) ?? all.find((thing) => thing.name === nameOrId);
  if (exact !== undefined) return exact;
  const shown = JSON.stringify(nameOrId.slice(0, 80));
  const candidates = POSSIBLE.test(nameOrId) ? all.filter((thing) => thing.id.startsWith(nameOrId)) : [];
  const [only, another] = candidates;
  if (only === undefined) throw new BelljarError(notFound, `there is no ${what} ${shown}`);
  if (another === undefined) return only;
  throw new BelljarError(ambiguous, `${candidates.length} ${what} ids begin with ${shown}`, {
    facts: { ids: candidates.slice(0, 8).map(({ id }) => id) },
  });
}
