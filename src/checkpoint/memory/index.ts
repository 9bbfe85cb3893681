/** Guests' memory as files: which pages are their own, and how they get in and out. */
export {
  createGuestMemory,
  type GuestMemory,
  type PagesFile,
  type PreparedPages,
  type SavedMemory,
} from "./guest-memory.ts";
export { type BlockPages, countPages, decodePages, encodePages, PAGE_BYTES } from "./page-runs.ts";
