/** The part of the OCI runtime specification that Belljar writes. */
import type { SeccompProfile } from "./seccomp-default.ts";

export interface OciProcess {
  readonly terminal: boolean;
  /** Filled in by the agent, which looks names up in the container's own files. */
  readonly user: { readonly uid: number; readonly gid: number };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: {
    readonly bounding: readonly string[];
    readonly effective: readonly string[];
    readonly permitted: readonly string[];
  };
  readonly rlimits: readonly { readonly type: string; readonly soft: number; readonly hard: number }[];
  readonly noNewPrivileges: boolean;
  readonly oomScoreAdj: number;
}

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface OciDeviceRule {
  readonly allow: boolean;
  /** Character or block device; absent in the rule for all devices. */
  readonly type?: "c" | "b";
  readonly major?: number;
  readonly minor?: number;
  /** Of r, w and m (make the node). */
  readonly access: string;
}

export interface OciResources {
  readonly devices: readonly OciDeviceRule[];
  readonly pids?: { readonly limit: number };
  readonly memory?: { readonly limit: number };
  readonly cpu?: { readonly quota?: number; readonly period?: number; readonly cpus?: string };
  /** Files of cgroup v2 and what is written to them. */
  readonly unified?: Readonly<Record<string, string>>;
}

export interface OciSpec {
  readonly ociVersion: string;
  readonly process: OciProcess;
  /** `path` is the agent's to fill in. */
  readonly root: { readonly path: string; readonly readonly: boolean };
  readonly mounts: readonly OciMount[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly linux: {
    readonly namespaces: readonly { readonly type: string }[];
    readonly maskedPaths: readonly string[];
    readonly readonlyPaths: readonly string[];
    readonly resources: OciResources;
    readonly seccomp?: SeccompProfile;
  };
}
