/** What a container's root file system is made of: an image that is here, or what the caller has ready. */
import { BelljarError } from "../base/index.ts";
import { type HandedRoot, type RootfsConfig, takeRootfs } from "../container/index.ts";
import type { HeldImage } from "../images/index.ts";
import type { RuntimeDeps } from "./deps.ts";

export interface RootSource extends AsyncDisposable {
  readonly image: HeldImage;
  readonly handed: HandedRoot | undefined;
}

/** Until the answer is disposed of, nothing of an image is removed. */
export async function findRoot(
  { images }: Pick<RuntimeDeps, "images">,
  { image, rootfs }: { readonly image?: string | undefined; readonly rootfs?: RootfsConfig | undefined },
  signal: AbortSignal | undefined,
): Promise<RootSource> {
  if ((image === undefined) === (rootfs === undefined)) {
    throw new BelljarError("INVALID_ARGUMENT", "a container needs either an image or a root file system");
  }
  if (rootfs === undefined) {
    const held = await images.hold(image ?? "", signal);
    return { image: held, handed: undefined, [Symbol.asyncDispose]: () => held[Symbol.asyncDispose]() };
  }
  const handed = await takeRootfs(rootfs);
  return { image: imageOf(handed), handed, [Symbol.asyncDispose]: async () => {} };
}

/** A root file system says nothing about how it is run. */
function imageOf({ name }: HandedRoot): HeldImage {
  const config = {
    entrypoint: [],
    cmd: [],
    env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    workingDir: "/",
    user: "",
    exposedPorts: [],
    volumes: [],
    stopSignal: "",
    labels: {},
  };
  return { name, digest: "", config, layers: [], [Symbol.asyncDispose]: async () => {} };
}
