/** OCI images in, read-only EROFS layers out. */
export { type BuiltinOptions, builtinStoreDir } from "./builtin.ts";
export { type ImageStoreDeps, openImageStore, prepareBuiltins } from "./image-store.ts";
export type { LayerUse, ReadLayerUse } from "./layer-use.ts";
export { type ImageReference, parseReference, storedName } from "./reference.ts";
export {
  type CollectGarbageOptions,
  type GarbageReport,
  type HeldImage,
  type ImageConfig,
  type ImageDetails,
  type ImageInfo,
  type ImageKind,
  type ImageLayer,
  type ImageStore,
  type ImportOptions,
  imageKinds,
  type PullOptions,
  type RemoveImageOptions,
  type ResolvedImage,
} from "./types.ts";
