/** A network namespace that somebody else has made (CNI, Docker, Podman), as a caller names it. */
import { BelljarError, type Field } from "../base/index.ts";

/**
 * How the VM is joined to an interface: `tcfilter` sends everything that arrives at the one to the other, `macvtap` puts one over
 * it, and `none` leaves it alone.
 */
export const endpointModels = ["tcfilter", "none"] as const;
export type EndpointModel = (typeof endpointModels)[number];

export interface GivenPlace {
  readonly path: string;
  readonly model: EndpointModel;
}

const PATH = /^\/[^\0\n]*$/;
const PATH_MAX_LENGTH = 4_096;

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleGivenPlace(path: string | undefined, model: EndpointModel = "tcfilter"): GivenPlace {
  if (!endpointModels.includes(model)) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(model)} is no way to join an interface`, {
      remedy: `Use one of ${endpointModels.join(", ")}.`,
    });
  }
  if (path === undefined || !PATH.test(path) || path.length > PATH_MAX_LENGTH) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(path ?? "")} is no path of a network namespace`, {
      remedy: "Write `netns:` with an absolute path behind it, such as netns:/run/netns/name.",
    });
  }
  return { path, model };
}

export function decodeGivenPlace(field: Field): GivenPlace {
  return {
    path: field.field("path").string({ pattern: PATH, maxLength: PATH_MAX_LENGTH }),
    model: field.field("model").oneOf(endpointModels),
  };
}
