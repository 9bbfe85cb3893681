/** What a container uses, as the guest says it: lists are bounded, names are cleaned, numbers stand as they came. */
import type { AgentResponse } from "../agent-client/index.ts";

/** As cgroup v2 of the guest has it. Times in microseconds, sizes in bytes. */
export interface ContainerStats {
  readonly cpu: {
    readonly usageUs: bigint;
    readonly userUs: bigint;
    readonly systemUs: bigint;
    readonly periods: bigint;
    readonly throttledPeriods: bigint;
    readonly throttledUs: bigint;
  };
  readonly memory: {
    readonly usageBytes: bigint;
    readonly peakBytes: bigint;
    /** Absent without a limit. */
    readonly limitBytes?: bigint | undefined;
    readonly swapBytes: bigint;
    readonly oomKills: bigint;
    /** memory.stat, whole. */
    readonly detail: Readonly<Record<string, bigint>>;
  };
  readonly pids: { readonly current: bigint; readonly limit?: bigint | undefined };
  readonly blockIo: readonly BlockIoStats[];
  readonly hugetlb: readonly { readonly pageSize: string; readonly usageBytes: bigint; readonly failures: bigint }[];
  readonly network: readonly NetworkStats[];
}

export interface BlockIoStats {
  /** `major:minor` */
  readonly device: string;
  readonly readBytes: bigint;
  readonly writtenBytes: bigint;
  readonly reads: bigint;
  readonly writes: bigint;
}

export interface NetworkStats {
  readonly name: string;
  readonly receivedBytes: bigint;
  readonly receivedPackets: bigint;
  readonly receiveErrors: bigint;
  readonly receiveDropped: bigint;
  readonly sentBytes: bigint;
  readonly sentPackets: bigint;
  readonly sendErrors: bigint;
  readonly sendDropped: bigint;
}

/** Devices, interfaces, page sizes, lines of memory.stat: a kernel has a few dozen of each at most. */
const ITEMS_MAX = 256;
const NAME_MAX_LENGTH = 64;

export function toContainerStats(answer: AgentResponse<"getContainerStats">): ContainerStats {
  const { cpu, memory, pids } = answer;
  const detail = Object.entries(memory?.detail ?? {}).slice(0, ITEMS_MAX);
  return {
    cpu: {
      usageUs: cpu?.usageUs ?? 0n,
      userUs: cpu?.userUs ?? 0n,
      systemUs: cpu?.systemUs ?? 0n,
      periods: cpu?.periods ?? 0n,
      throttledPeriods: cpu?.throttledPeriods ?? 0n,
      throttledUs: cpu?.throttledUs ?? 0n,
    },
    memory: {
      usageBytes: memory?.usageBytes ?? 0n,
      peakBytes: memory?.peakBytes ?? 0n,
      limitBytes: memory?.limitBytes,
      swapBytes: memory?.swapBytes ?? 0n,
      oomKills: memory?.oomKills ?? 0n,
      detail: Object.fromEntries(detail.map(([name, value]) => [clean(name), value])),
    },
    pids: { current: pids?.current ?? 0n, limit: pids?.limit },
    blockIo: answer.blockIo.slice(0, ITEMS_MAX).map(({ device, readBytes, writtenBytes, reads, writes }) => ({
      device: clean(device),
      readBytes,
      writtenBytes,
      reads,
      writes,
    })),
    hugetlb: answer.hugetlb.slice(0, ITEMS_MAX).map(({ pageSize, usageBytes, failures }) => ({
      pageSize: clean(pageSize),
      usageBytes,
      failures,
    })),
    network: answer.network.slice(0, ITEMS_MAX).map(({ $typeName: _, $unknown: __, name, ...counts }) => ({
      name: clean(name),
      ...counts,
    })),
  };
}

function clean(text: string): string {
  return text.slice(0, NAME_MAX_LENGTH).replace(/[^\w.:@-]/g, "?");
}
