/**
 * What the agent adds to the OCI configuration that the host sends: where the root file system is, who the process runs as, and what
 * else is only known in the guest. Pure.
 */
import { BelljarError } from "../src/base/errors.ts";
import type { ResolvedUser } from "./user.ts";

export type JsonObject = { readonly [key: string]: unknown };

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function parseObject(bytes: Uint8Array, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw new BelljarError("INVALID_ARGUMENT", `${what} is not JSON`, { cause });
  }
  return asObject(value, what);
}

export function asObject(value: unknown, what: string): JsonObject {
  if (isObject(value)) return value;
  throw new BelljarError("INVALID_ARGUMENT", `${what} is not an object`);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function wantsTerminal(process: JsonObject): boolean {
  return process["terminal"] === true;
}

export function completeProcess(process: JsonObject, user: ResolvedUser, size: TerminalSize | undefined): JsonObject {
  const env = Array.isArray(process["env"]) ? process["env"] : [];
  const hasHome = env.some((entry) => typeof entry === "string" && entry.startsWith("HOME="));
  const given = isObject(process["user"]) ? process["user"] : {};
  const terminal = wantsTerminal(process) && size !== undefined;
  return {
    ...process,
    env: hasHome ? env : [...env, `HOME=${user.home}`],
    user: { ...given, uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    // The agent protects itself; what it starts must not inherit that.
    oomScoreAdj: typeof process["oomScoreAdj"] === "number" ? process["oomScoreAdj"] : 0,
    ...(terminal ? { consoleSize: { width: size.columns, height: size.rows } } : {}),
  };
}

export function completeSpec(
  spec: JsonObject,
  facts: { readonly process: JsonObject; readonly rootfs: string; readonly cgroupsPath: string },
): JsonObject {
  const root = isObject(spec["root"]) ? spec["root"] : {};
  const linux = isObject(spec["linux"]) ? spec["linux"] : {};
  return {
    ...spec,
    process: facts.process,
    root: { ...root, path: facts.rootfs },
    linux: { ...linux, cgroupsPath: facts.cgroupsPath },
  };
}
