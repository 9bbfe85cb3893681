/** Guest images: kernel, initramfs and root that a sandbox's VM boots, built by the recipe in guest-image/. */
export type { BuildSources } from "./build-inputs.ts";
export {
  type BuildOptions,
  type GuestImage,
  type GuestImageInfo,
  type GuestImages,
  type GuestImagesDeps,
  openGuestImages,
} from "./guest-images.ts";
export { GUEST_FILES, type GuestInputs, type GuestManifest, type OutputFile, type PackageFacts } from "./manifest.ts";
