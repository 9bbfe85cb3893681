/** The guest image that a sandbox boots: the one it had, while it is there. */
import type { GuestImage } from "../guest/index.ts";
import type { RuntimeDeps } from "./deps.ts";

/** @throws BelljarError `GUEST_IMAGE_MISSING`, `GUEST_IMAGE_CORRUPT` */
export async function openGuestImage(images: RuntimeDeps["guestImages"], digest: string): Promise<GuestImage> {
  return await images.open(digest);
}
