/** Where the files of one image store are. */
import { join } from "node:path";
import { digestHex } from "./digest.ts";

export class StoreLayout {
  readonly dir: string;

  constructor(dir: string) {
    this.dir = dir;
  }

  get layersDir(): string {
    return join(this.dir, "layers");
  }

  get blobsDir(): string {
    return join(this.dir, "blobs/sha256");
  }

  get stagingDir(): string {
    return join(this.dir, "staging");
  }

  /** Shared while files are added or about to be used, exclusive while garbage is removed. */
  get useLock(): string {
    return join(this.dir, "use.lock");
  }

  layer(diffId: string): string {
    return join(this.layersDir, layerFileName(diffId));
  }

  blob(digest: string): string {
    return join(this.blobsDir, digestHex(digest));
  }
}

export function layerFileName(diffId: string): string {
  return `${digestHex(diffId)}.erofs`;
}
