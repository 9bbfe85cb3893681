/** Volumes that are only names, for tests of what talks to the daemon. */
import { BelljarError } from "../../src/base/index.ts";
import type { VolumeCreateConfig, VolumeInfo, Volumes } from "../../src/runtime/index.ts";

export class FakeVolumes implements Volumes {
  readonly all = new Map<string, VolumeInfo>();

  async create({ name = "unnamed", sizeBytes = 1024, labels = {} }: VolumeCreateConfig = {}): Promise<VolumeInfo> {
    const user = { sandboxId: "s", containerId: "c", destination: "/data", readOnly: false, mounted: true };
    const users = name === "used" ? [user] : [];
    const info = { name, createdAtMs: 1_700_000_000_000, sizeBytes, usedBytes: 512, path: `/${name}`, labels, users };
    this.all.set(name, info);
    return info;
  }

  async get(name: string): Promise<VolumeInfo> {
    const found = this.all.get(name);
    if (found !== undefined) return found;
    throw new BelljarError("VOLUME_NOT_FOUND", `there is no volume ${name}`);
  }

  async list(): Promise<readonly VolumeInfo[]> {
    return [...this.all.values()];
  }

  async remove(name: string): Promise<void> {
    const { users } = await this.get(name);
    if (users.length > 0) throw new BelljarError("VOLUME_IN_USE", `the volume ${name} is in use`);
    this.all.delete(name);
  }

  async prune(): Promise<{ readonly removed: readonly string[]; readonly freedBytes: number }> {
    const unused = [...this.all.values()].filter(({ users }) => users.length === 0);
    for (const { name } of unused) this.all.delete(name);
    return { removed: unused.map(({ name }) => name), freedBytes: unused.length * 512 };
  }
}
