/**
 * A running VM grows and shrinks. QEMU alone knows what is plugged, and is asked: whoever changed it may have died, and the guest
 * answers a request for memory in its own time, or not at all.
 */
import { BelljarError, systemClock, vmmLimits } from "../../base/index.ts";
import type { ResizeOptions, VmSize } from "../interface.ts";
import { cpuDevice, cpuId, GROWTH_BLOCK_MIB, GROWTH_DEVICE, type GrowthLine, parksCpus } from "./growth-arguments.ts";
import { readAvailableMib } from "./host-memory.ts";
import type { QmpClient } from "./qmp.ts";

const MIB = 1024 * 1024;

/** What a VM has beyond what it started with. */
export interface Plugged {
  readonly memoryMib: number;
  readonly cpus: number;
}

const NOTHING_PLUGGED: Plugged = { memoryMib: 0, cpus: 0 };

function canGrow({ memoryMib, cpus, memoryMaxMib = 0, cpusMax = 0 }: GrowthLine): boolean {
  return memoryMaxMib > memoryMib || cpusMax > cpus;
}

/** @param parked CPUs beyond the first that are in use where the VMM cannot tell, because all of them are there */
export async function queryPlugged(qmp: QmpClient, line: GrowthLine, parked: number): Promise<Plugged> {
  if (!canGrow(line)) return NOTHING_PLUGGED;
  const cpus = parksCpus(line) ? parked : (await queryCpuPlaces(qmp)).size - line.cpus;
  return { memoryMib: await queryMemory(qmp), cpus };
}

/**
 * @param onChange told of what is plugged whenever that has changed
 * @throws BelljarError `INVALID_ARGUMENT`, `NOT_ENOUGH_MEMORY`
 */
export async function resizeVm(
  qmp: QmpClient,
  line: GrowthLine,
  wanted: VmSize,
  options: ResizeOptions & { readonly parked: number; readonly onChange: (plugged: Plugged) => void },
): Promise<void> {
  const before = await queryPlugged(qmp, line, options.parked);
  const target = targetOf(line, wanted);
  if (target.memoryMib > before.memoryMib) await checkHostMemory(target.memoryMib - before.memoryMib);
  const endMs = systemClock.monotonicMs() + options.timeoutMs;
  let { parked } = options;
  try {
    if (target.memoryMib !== before.memoryMib) await resizeMemory(qmp, target.memoryMib, endMs, options.signal);
    if (parksCpus(line)) parked = target.cpus;
    else await resizeCpus(qmp, line, target.cpus, endMs, options.signal);
  } finally {
    options.onChange(await queryPlugged(qmp, line, parked));
  }
}

function targetOf(line: GrowthLine, wanted: VmSize): Plugged {
  const memoryMaxMib = line.memoryMaxMib ?? line.memoryMib;
  const cpusMax = line.cpusMax ?? line.cpus;
  const refuse = (what: string, max: number): never => {
    throw new BelljarError("INVALID_ARGUMENT", `the VM cannot have ${what}: it was started for at most ${max}`, {
      facts: { max },
      remedy: "Stop the sandbox and start it again with more, or ask for less.",
    });
  };
  if (wanted.memoryMib > memoryMaxMib) refuse(`${wanted.memoryMib} MiB of memory`, memoryMaxMib);
  if (wanted.cpus > cpusMax) refuse(`${wanted.cpus} CPUs`, cpusMax);
  const memoryMib = Math.max(0, wanted.memoryMib - line.memoryMib);
  return {
    memoryMib: Math.ceil(memoryMib / GROWTH_BLOCK_MIB) * GROWTH_BLOCK_MIB,
    cpus: Math.max(0, wanted.cpus - line.cpus),
  };
}

/** @throws BelljarError `NOT_ENOUGH_MEMORY` */
async function checkHostMemory(moreMib: number): Promise<void> {
  const availableMib = await readAvailableMib();
  if (moreMib <= availableMib) return;
  const message = `the VM would need ${moreMib} MiB more, and the host has ${availableMib} MiB free`;
  throw new BelljarError("NOT_ENOUGH_MEMORY", message, { facts: { wantedMib: moreMib, availableMib } });
}

/** Until the guest has done it or time is up. */
async function resizeMemory(qmp: QmpClient, mib: number, endMs: number, signal?: AbortSignal): Promise<void> {
  await requestMemory(qmp, mib * MIB);
  const isDone = await until(async () => (await queryMemory(qmp)) === mib, endMs, signal).catch(async (error) => {
    await withdraw(qmp);
    throw error;
  });
  if (!isDone) await withdraw(qmp);
}

/** What is there is all that is asked for. */
async function withdraw(qmp: QmpClient): Promise<void> {
  await requestMemory(qmp, (await queryMemory(qmp)) * MIB);
}

async function requestMemory(qmp: QmpClient, bytes: number): Promise<void> {
  await qmp.execute("qom-set", {
    path: `/machine/peripheral/${GROWTH_DEVICE}`,
    property: "requested-size",
    value: bytes,
  });
}

async function queryMemory(qmp: QmpClient): Promise<number> {
  const devices = await qmp.execute("query-memory-devices");
  const sizes = devices.array((device) => {
    const data = device.field("data");
    const id = data.field("id").optional((field) => field.string());
    return id === GROWTH_DEVICE ? data.field("size").integer({ min: 0 }) : 0;
  });
  return sizes.reduce((sum, bytes) => sum + bytes, 0) / MIB;
}

async function resizeCpus(
  qmp: QmpClient,
  line: GrowthLine,
  plugged: number,
  endMs: number,
  signal?: AbortSignal,
): Promise<void> {
  if ((line.cpusMax ?? line.cpus) <= line.cpus) return;
  const wanted = line.cpus + plugged;
  const there = await queryCpuPlaces(qmp);
  for (let place = line.cpus; place < wanted; place += 1) {
    if (!there.has(place)) await qmp.execute("device_add", cpuDevice(place));
  }
  const surplus = [...there].filter((place) => place >= wanted).sort((a, b) => b - a);
  for (const place of surplus) {
    await qmp.execute("device_del", { id: cpuId(place) });
    if (!(await until(async () => !(await queryCpuPlaces(qmp)).has(place), endMs, signal))) return;
  }
}

/** Numbers of the CPUs that are there. */
async function queryCpuPlaces(qmp: QmpClient): Promise<ReadonlySet<number>> {
  const answer = await qmp.execute("query-hotpluggable-cpus");
  const places = answer.array((cpu) => ({
    place: cpu.field("props").field("core-id").integer({ min: 0 }),
    isThere: cpu.field("qom-path").optional((path) => path.string()) !== undefined,
  }));
  return new Set(places.filter(({ isThere }) => isThere).map(({ place }) => place));
}

async function until(condition: () => Promise<boolean>, endMs: number, signal?: AbortSignal): Promise<boolean> {
  for (;;) {
    if (await condition()) return true;
    if (systemClock.monotonicMs() >= endMs) return false;
    await systemClock.sleep(vmmLimits.resizePollMs, signal);
  }
}
