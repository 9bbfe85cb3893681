/** Sandboxes and containers as JSON for scripts and as words for people: times are RFC 3339, sizes bytes. */
import type { ContainerInfo, SandboxInfo } from "../sdk/index.ts";

export function sandboxJson(info: SandboxInfo): unknown {
  const { id, name, state, image, memoryMib, cpus, hostname, annotations, vmm, generation, checkpoints, problem } =
    info;
  const { ports: _, ...networkJson } = info.network ?? { mode: "none", ports: [] };
  return {
    id,
    name,
    state,
    image,
    createdAt: time(info.createdAtMs),
    memoryBytes: memoryMib * 2 ** 20,
    cpus,
    hostname,
    annotations,
    vmm,
    generation,
    checkpoints,
    containers: info.containers.map(containerJson),
    mounts: info.containers.flatMap(({ id: containerId, mounts }) =>
      mounts.map((mount) => ({ containerId, ...mount })),
    ),
    devices: info.devices,
    network: { ...networkJson, addresses: info.network?.addresses ?? [] },
    ports: (info.network ?? info.hibernation)?.ports ?? [],
    hibernatedAt: time(info.hibernation?.sinceMs),
    idleTimeoutMs: info.idleTimeoutMs,
    trail: info.trail,
    restart: restartJson(info),
    end: endJson(info.end),
    problem,
  };
}

export function containerJson(info: ContainerInfo): unknown {
  const { id, name, state, image, command, pid, tty, stdin, limits, mounts, status } = info;
  return {
    id,
    name,
    state,
    image,
    command,
    createdAt: time(info.createdAtMs),
    startedAt: time(info.startedAtMs),
    pid,
    tty,
    stdin,
    limits,
    mounts,
    status:
      status === undefined
        ? undefined
        : {
            exitCode: status.exitCode,
            signal: status.signal,
            oomKilled: status.oomKilled,
            startedAt: time(status.startedAtMs),
            exitedAt: time(status.exitedAtMs),
            launchError: status.launchError,
          },
    end: endJson(info.end),
  };
}

function restartJson({ restart }: SandboxInfo): unknown {
  if (restart === undefined) return undefined;
  const { nextAtMs, ...rest } = restart;
  return { ...rest, nextAt: time(nextAtMs) };
}

function endJson(end: SandboxInfo["end"]): unknown {
  return end === undefined ? undefined : { reason: end.reason, message: end.message, at: time(end.atMs) };
}

function time(ms: number | undefined): string | undefined {
  // A clock of a guest may say anything; a date has a largest value.
  return ms === undefined || Number.isNaN(new Date(ms).getTime()) ? undefined : new Date(ms).toISOString();
}

const UNITS = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1000],
] as const;

export function formatAge(thenMs: number, nowMs: number): string {
  for (const [unit, lengthMs] of UNITS) {
    const count = Math.floor((nowMs - thenMs) / lengthMs);
    if (count >= 1) return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
  }
  return "just now";
}
