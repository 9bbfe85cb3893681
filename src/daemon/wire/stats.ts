/** Figures, to the wire and back. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { api } from "../../protocol/index.ts";
import type { ContainerStats, SandboxStats } from "../../runtime/index.ts";
import { given } from "./given.ts";
import { incomplete } from "./info.ts";

export function toContainerStats(stats: ContainerStats): MessageInitShape<typeof api.ContainerStatsSchema> {
  return {
    cpu: { ...stats.cpu },
    memory: given({ ...stats.memory, detail: { ...stats.memory.detail } }),
    pids: given({ ...stats.pids }),
    blockIo: stats.blockIo.map((each) => ({ ...each })),
    hugetlb: stats.hugetlb.map((each) => ({ ...each })),
    network: stats.network.map((each) => ({ ...each })),
  };
}

export function fromContainerStats(wire: api.ContainerStats | undefined): ContainerStats {
  if (wire?.cpu === undefined || wire.memory === undefined || wire.pids === undefined) throw incomplete("stats");
  const { cpu, memory, pids } = wire;
  return {
    cpu: bare(cpu),
    memory: {
      usageBytes: memory.usageBytes,
      peakBytes: memory.peakBytes,
      limitBytes: memory.limitBytes,
      swapBytes: memory.swapBytes,
      oomKills: memory.oomKills,
      detail: memory.detail,
    },
    pids: { current: pids.current, limit: pids.limit },
    blockIo: wire.blockIo.map(bare),
    hugetlb: wire.hugetlb.map(bare),
    network: wire.network.map(bare),
  };
}

export function toSandboxStats(stats: SandboxStats): MessageInitShape<typeof api.SandboxStatsSchema> {
  const containers = Object.entries(stats.containers).map(([id, each]) => [id, toContainerStats(each)] as const);
  const { host, guest, deniedPackets } = stats;
  return given({ host: { ...host }, guest: { ...guest }, containers: Object.fromEntries(containers), deniedPackets });
}

export function fromSandboxStats(wire: api.SandboxStats | undefined): SandboxStats {
  if (wire?.host === undefined || wire.guest === undefined) throw incomplete("stats");
  const containers = Object.entries(wire.containers).map(([id, each]) => [id, fromContainerStats(each)] as const);
  const { host, guest, deniedPackets } = wire;
  const denied = deniedPackets === undefined ? {} : { deniedPackets };
  return { host: bare(host), guest: bare(guest), containers: Object.fromEntries(containers), ...denied };
}

/** The message's own fields, without what the codec keeps with it. */
function bare<T extends { readonly $typeName: string }>(message: T): Omit<T, "$typeName" | "$unknown"> {
  const { $typeName: _name, $unknown: _unknown, ...fields }: T & { readonly $unknown?: unknown } = message;
  return fields;
}
