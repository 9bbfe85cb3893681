/** Resource limits of a container's processes. */
export interface RlimitConfig {
  /** `RLIMIT_NOFILE` and its like. */
  readonly type: string;
  readonly soft: number;
  readonly hard: number;
}

/** Open files: docker's figure, and what programs that close "all" descriptors can bear. */
export const DEFAULT_RLIMITS: readonly RlimitConfig[] = [{ type: "RLIMIT_NOFILE", soft: 1_048_576, hard: 1_048_576 }];
