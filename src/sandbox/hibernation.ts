/** What a sandbox's state says while it has no VM and goes on later: which checkpoint of its own, and what must be as it was. */
import { type Field, isId, networkLimits } from "../base/index.ts";
import { decodePublishedPort, type PublishedPort } from "../network/index.ts";

export interface HibernationState {
  /** Name of the checkpoint's directory in `saved/`. */
  readonly saved: string;
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  /** Those that were published when it was let go: they are the same when it wakes. */
  readonly ports: readonly PublishedPort[];
  /** It goes back to an earlier checkpoint: what it did since is gone, its output too, and it is told so. */
  readonly rewound?: boolean | undefined;
  /** Of one that goes back: processes that `exec` had started go on. */
  readonly keepExec?: boolean | undefined;
}

export function decodeHibernation(field: Field): HibernationState {
  const saved = field.field("saved").string({ maxLength: 64 });
  if (!isId(saved)) throw field.field("saved").expected("an id");
  return {
    saved,
    sinceMs: field.field("sinceMs").integer({ min: 0 }),
    ports: field.field("ports").array(decodePublishedPort, { maxItems: networkLimits.portsMax }),
    rewound: field.field("rewound").optional((value) => value.boolean()),
    keepExec: field.field("keepExec").optional((value) => value.boolean()),
  };
}
