/** Whether anything goes over a sandbox's network: packets counted at the guest's interface, and connections that are open. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { networkLimits } from "../base/index.ts";
import { nicsOf } from "./guest.ts";
import { TAP } from "./layout.ts";
import type { NetworkState } from "./state.ts";

export interface Traffic {
  /** In both directions, since the network was made. */
  readonly packets: number;
  /** That are established, though nothing may be said on them. */
  readonly connections: number;
}

/** What cannot be read counts as nothing: a sandbox that is put to sleep too early wakes. */
export async function readTraffic(network: NetworkState, vmmPid: number): Promise<Traffic> {
  // A process's own sight of /proc/net is its network namespace's.
  const counted = await readText(`/proc/${vmmPid}/net/dev`);
  if (network.mode === "netns") {
    const taps = nicsOf(network).map(({ tap }) => parseTraffic(counted, tap));
    // Connections are the guest's own: nobody outside keeps count of them.
    return { packets: taps.reduce((sum, packets) => sum + packets, 0), connections: 0 };
  }
  const { mode, uplink } = network;
  const packets = parseTraffic(counted, TAP);
  if (mode === "user") return { packets, connections: uplink === undefined ? 0 : await connectionsOf(uplink.pid) };
  const tracked = await readText(`/proc/${vmmPid}/net/nf_conntrack`);
  return { packets, connections: tracked.split("\n").filter((line) => line.includes(" ESTABLISHED ")).length };
}

/** Packets of an interface, as /proc/net/dev has them. */
export function parseTraffic(text: string, name: string): number {
  for (const line of text.split("\n")) {
    const [device, numbers] = line.split(":", 2);
    if (device?.trim() !== name || numbers === undefined) continue;
    const fields = numbers.trim().split(/\s+/).map(Number);
    return (fields[1] ?? 0) + (fields[9] ?? 0);
  }
  return 0;
}

/** TCP connections that a process has with the outside. */
async function connectionsOf(pid: number): Promise<number> {
  const own = new Set<string>();
  const names = await readdir(`/proc/${pid}/fd`).catch(() => []);
  for (const name of names.slice(0, networkLimits.uplinkSocketsMax)) {
    const inode = /^socket:\[(\d+)\]$/.exec(await readlink(`/proc/${pid}/fd/${name}`).catch(() => ""))?.[1];
    if (inode !== undefined) own.add(inode);
  }
  let count = 0;
  for (const table of ["tcp", "tcp6"]) {
    for (const line of (await readText(`/proc/${pid}/net/${table}`)).split("\n")) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === ESTABLISHED && own.has(fields[9] ?? "")) count += 1;
    }
  }
  return count;
}

const ESTABLISHED = "01";

async function readText(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}
