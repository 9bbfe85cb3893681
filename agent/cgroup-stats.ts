/** What a container uses, as its control groups have it. Read only; what a kernel does not count is 0 or absent. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GetContainerStatsResponseSchema } from "../src/protocol/index.ts";
import { parseCounts, parseLimit, readOrNothing } from "./cgroup-files.ts";

export type ContainerStats = Omit<MessageInitShape<typeof GetContainerStatsResponseSchema>, "$typeName" | "network">;
type Network = NonNullable<MessageInitShape<typeof GetContainerStatsResponseSchema>["network"]>;

export interface StatsDirs {
  /** The group that stays for the container's whole life: what is used, with all below it. */
  readonly total: string;
  /** The group with the limits, while the container runs: limits, and how often they held something up. */
  readonly limited: string;
}

export async function readStats({ total, limited }: StatsDirs): Promise<ContainerStats> {
  const text = (name: string): Promise<string> => readOrNothing(join(total, name));
  const count = async (name: string): Promise<bigint> => parseLimit(await text(name)) ?? 0n;
  const limit = async (name: string): Promise<bigint | undefined> =>
    parseLimit(await readOrNothing(join(limited, name)));
  const cpu = parseCounts(await text("cpu.stat"));
  const throttled = parseCounts(await readOrNothing(join(limited, "cpu.stat")));
  const memoryLimit = await limit("memory.max");
  const pidsLimit = await limit("pids.max");
  return {
    cpu: {
      usageUs: cpu.get("usage_usec") ?? 0n,
      userUs: cpu.get("user_usec") ?? 0n,
      systemUs: cpu.get("system_usec") ?? 0n,
      periods: throttled.get("nr_periods") ?? 0n,
      throttledPeriods: throttled.get("nr_throttled") ?? 0n,
      throttledUs: throttled.get("throttled_usec") ?? 0n,
    },
    memory: {
      usageBytes: await count("memory.current"),
      peakBytes: await count("memory.peak"),
      ...(memoryLimit === undefined ? {} : { limitBytes: memoryLimit }),
      swapBytes: await count("memory.swap.current"),
      oomKills: parseCounts(await text("memory.events")).get("oom_kill") ?? 0n,
      detail: Object.fromEntries(parseCounts(await text("memory.stat"))),
    },
    pids: { current: await count("pids.current"), ...(pidsLimit === undefined ? {} : { limit: pidsLimit }) },
    blockIo: parseBlockIo(await text("io.stat")),
    hugetlb: await readHugetlb(total),
  };
}

/** Lines of `8:16 rbytes=1 wbytes=2 rios=3 wios=4 ...`; a device without any numbers has none. */
export function parseBlockIo(text: string): NonNullable<ContainerStats["blockIo"]> {
  return [...text.matchAll(/^(\d+:\d+) (.+)$/gm)].map(([, device = "", rest = ""]) => {
    const counts = parseCounts(rest.replaceAll("=", " ").replaceAll(/ (?=[a-z])/g, "\n"));
    return {
      device,
      readBytes: counts.get("rbytes") ?? 0n,
      writtenBytes: counts.get("wbytes") ?? 0n,
      reads: counts.get("rios") ?? 0n,
      writes: counts.get("wios") ?? 0n,
    };
  });
}

async function readHugetlb(dir: string): Promise<NonNullable<ContainerStats["hugetlb"]>> {
  const names = await readdir(dir).catch(() => []);
  const sizes = names.flatMap((name) => /^hugetlb\.([0-9]+[KMG]B)\.current$/.exec(name)?.[1] ?? []);
  return await Promise.all(
    sizes.sort().map(async (pageSize) => ({
      pageSize,
      usageBytes: parseLimit(await readOrNothing(join(dir, `hugetlb.${pageSize}.current`))) ?? 0n,
      failures: parseCounts(await readOrNothing(join(dir, `hugetlb.${pageSize}.events`))).get("max") ?? 0n,
    })),
  );
}

/** Text of /proc/net/dev: after the name, eight numbers of what was received and eight of what was sent. */
export function parseNetwork(text: string): Network {
  return [...text.matchAll(/^ *([^\s:]+): *([\d ]+)$/gm)].map(([, name = "", rest = ""]) => {
    const numbers = rest.trim().split(/ +/).map(BigInt);
    const at = (index: number): bigint => numbers[index] ?? 0n;
    return {
      name,
      receivedBytes: at(0),
      receivedPackets: at(1),
      receiveErrors: at(2),
      receiveDropped: at(3),
      sentBytes: at(8),
      sentPackets: at(9),
      sendErrors: at(10),
      sendDropped: at(11),
    };
  });
}
