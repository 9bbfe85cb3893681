/** One side of `cp`: a path of this host, a path in a container, or a tar stream. */
import { BelljarError } from "../../base/index.ts";

export type Endpoint =
  | { readonly kind: "host"; readonly path: string }
  | { readonly kind: "container"; readonly target: string; readonly path: string }
  | { readonly kind: "stream" };

/** As docker has it: what begins with a slash or a dot is of this host, and so is what has no colon. */
export function parseEndpoint(text: string): Endpoint {
  if (text === "") throw new BelljarError("INVALID_ARGUMENT", "a path is empty");
  if (text === "-") return { kind: "stream" };
  const at = text.indexOf(":");
  if (text.startsWith("/") || text.startsWith(".") || at <= 0) return { kind: "host", path: text };
  return { kind: "container", target: text.slice(0, at), path: text.slice(at + 1) || "/" };
}
