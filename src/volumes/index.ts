/** What can be mounted into containers and is there without them: named volumes, disks with file systems, direct-assigned volumes. */
export {
  DIRECT_VOLUMES_DIR,
  type DirectVolume,
  type FsGroup,
  forgetSandbox,
  readDirectVolume,
  recordSandbox,
} from "./direct-volume.ts";
export { checkFileSystem, checkQcow2, detectFileSystem, READ_ONLY_FILE_SYSTEMS } from "./file-system.ts";
export { notFound, type StoredVolume, type VolumeConfig, VolumeStore } from "./volume-store.ts";
