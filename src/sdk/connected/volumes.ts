/** The volumes of a root behind the daemon. */
import { fromVolumeInfo, toVolumeRequest } from "../../daemon/index.ts";
import type { CallOptions, VolumeCreateConfig, VolumeInfo, Volumes } from "../../runtime/index.ts";
import type { DaemonLink } from "./daemon-link.ts";

export class ConnectedVolumes implements Volumes {
  readonly #link: DaemonLink;

  constructor(link: DaemonLink) {
    this.#link = link;
  }

  async create(config: VolumeCreateConfig = {}, { signal }: CallOptions = {}): Promise<VolumeInfo> {
    // Without a name each call makes another one.
    const repeatable = config.name !== undefined;
    const answer = await this.#link.call(
      { what: "a volume was being created", repeatable, signal, timeoutMs: 0 },
      ({ volume }, call) => volume.createVolume(toVolumeRequest(config), call),
    );
    return fromVolumeInfo(answer.volume);
  }

  async get(name: string): Promise<VolumeInfo> {
    const answer = await this.#link.call({ what: "a volume was looked for", repeatable: true }, ({ volume }, call) =>
      volume.getVolume({ name }, call),
    );
    return fromVolumeInfo(answer.volume);
  }

  async list(): Promise<readonly VolumeInfo[]> {
    const answer = await this.#link.call({ what: "volumes were listed", repeatable: true }, ({ volume }, call) =>
      volume.listVolumes({}, call),
    );
    return answer.volumes.map((each) => fromVolumeInfo(each));
  }

  async remove(name: string): Promise<void> {
    await this.#link.call({ what: "a volume was being removed", repeatable: false, timeoutMs: 0 }, ({ volume }, call) =>
      volume.removeVolume({ name }, call),
    );
  }

  async prune({ all = false }: { readonly all?: boolean | undefined } = {}): Promise<{
    readonly removed: readonly string[];
    readonly freedBytes: number;
  }> {
    const { removed, freedBytes } = await this.#link.call(
      { what: "volumes were being removed", repeatable: false, timeoutMs: 0 },
      ({ volume }, call) => volume.pruneVolumes({ all }, call),
    );
    return { removed, freedBytes };
  }
}
