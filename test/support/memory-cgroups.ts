/** The host's control groups, in memory: which there are, and which processes are in them. */
import { join } from "node:path";
import type { HostCgroups } from "../../src/resources/index.ts";

const TOP = "/memory/belljar/00000000";

export class MemoryCgroups implements HostCgroups {
  /** By directory. */
  readonly groups = new Map<string, Set<number>>();
  /** Ids of what was moved, one for each time. */
  readonly moves: string[] = [];

  /** Of those that there are. */
  get ids(): readonly string[] {
    return [...this.groups.keys()].map((dir) => dir.slice(TOP.length + 1));
  }

  async plan(id: string): Promise<readonly string[]> {
    return [join(TOP, id)];
  }

  async create(dirs: readonly string[]): Promise<void> {
    for (const dir of dirs) if (!this.groups.has(dir)) this.groups.set(dir, new Set());
  }

  async add(dirs: readonly string[], pid: number): Promise<void> {
    for (const dir of dirs) {
      const group = this.groups.get(dir);
      if (group === undefined) throw new Error(`there is no group ${dir}`);
      if (group.has(pid)) continue;
      group.add(pid);
      this.moves.push(dir.slice(TOP.length + 1));
    }
  }

  async remove(dirs: readonly string[]): Promise<void> {
    for (const dir of dirs) this.groups.delete(dir);
  }
}
