/** Volumes over the API: each call is one of the runtime. */
import type { ServiceImpl } from "@connectrpc/connect";
import type { api } from "../../protocol/index.ts";
import type { Volumes } from "../../runtime/index.ts";
import { toVolumeInfo } from "../wire/mounts.ts";

export function volumeService(volumes: Volumes): ServiceImpl<typeof api.VolumeService> {
  return {
    createVolume: async ({ name, sizeBytes, labels }, { signal }) => ({
      volume: toVolumeInfo(await volumes.create({ name, sizeBytes, labels }, { signal })),
    }),
    getVolume: async ({ name }) => ({ volume: toVolumeInfo(await volumes.get(name)) }),
    listVolumes: async () => ({ volumes: (await volumes.list()).map(toVolumeInfo) }),
    removeVolume: async ({ name }) => {
      await volumes.remove(name);
      return {};
    },
    pruneVolumes: async ({ all }) => {
      const { removed, freedBytes } = await volumes.prune({ all });
      return { removed: [...removed], freedBytes };
    },
  };
}
