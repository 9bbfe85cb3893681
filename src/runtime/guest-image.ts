/** The guest image that a sandbox boots: the one it had, while it is there. */
import type { GuestImage } from "../guest/index.ts";
import type { RuntimeDeps } from "./deps.ts";

/** @throws BelljarError `GUEST_IMAGE_MISSING`, `GUEST_IMAGE_CORRUPT` */
export async function openGuestImage(images: RuntimeDeps["guestImages"], digest: string): Promise<GuestImage> {
  const current = await images.current();
  // Checking the current one is a look at its files' times; another one is read as a whole.
  return current.digest === digest ? current : await images.verify(digest);
}
