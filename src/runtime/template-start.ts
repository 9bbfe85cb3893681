/** What may be asked of a sandbox that is started from a template with everything in it: the rest is as it was in the sandbox it was made of. */
import { BelljarError } from "../base/index.ts";
import type { CheckpointInfo, RestoreOptions, SandboxCreateConfig, SandboxCreateOptions } from "./interface.ts";
import { findNamed } from "./names.ts";

export interface TemplateStart extends RestoreOptions {
  readonly stopWithMain?: boolean | undefined;
  readonly autoRemove?: boolean | undefined;
}

const FREE = new Set(["template", "name", "hostname", "network", "stopWithMain", "autoRemove"]);
const DIGEST_PREFIX = /^[0-9a-f]{6,64}$/;

/** @throws BelljarError `INVALID_ARGUMENT` for what a template has decided already */
export function settleTemplateStart(config: SandboxCreateConfig, options: SandboxCreateOptions): TemplateStart {
  const { name, hostname, network = {}, stopWithMain, autoRemove } = config;
  const { ports, ...otherNetwork } = network;
  const decided = [
    ...Object.entries(config).filter(([key, value]) => !FREE.has(key) && isSaid(value)),
    ...Object.entries(otherNetwork).filter(([, value]) => isSaid(value)),
  ].map(([key]) => key);
  if (decided.length > 0) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      `a template has everything in it: ${decided.join(", ")} cannot be chosen`,
      {
        remedy: "Only the name, the host name and the published ports can.",
      },
    );
  }
  if (options.start === false) {
    throw new BelljarError("INVALID_ARGUMENT", "what is started from a template made of a sandbox runs from the start");
  }
  return { name, hostname, ports, stopWithMain, autoRemove, signal: options.signal };
}

/** By name, id, or the beginning of either's digest. @throws BelljarError `TEMPLATE_NOT_FOUND` */
export function findTemplate<T extends Pick<CheckpointInfo, "id" | "name" | "digest">>(
  templates: readonly T[],
  nameOrDigest: string,
): T {
  const exact = templates.find(({ id, name }) => id === nameOrDigest || name === nameOrDigest);
  if (exact !== undefined) return exact;
  const fitting = DIGEST_PREFIX.test(nameOrDigest)
    ? templates.filter(({ digest }) => digest.startsWith(nameOrDigest))
    : [];
  const [only, another] = fitting;
  if (only !== undefined && another === undefined) return only;
  return findNamed(templates, nameOrDigest, "template", "TEMPLATE_NOT_FOUND", "INVALID_ARGUMENT");
}

/** A message without anything in it comes of the wire where nothing was said. */
function isSaid(value: unknown): boolean {
  if (value === undefined) return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value !== "object" || value === null || Object.values(value).some(isSaid);
}
