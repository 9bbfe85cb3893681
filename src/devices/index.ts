/** What is plugged into a sandbox. */
export { endBackEndsOf, findBackEnds } from "./back-end-process.ts";
export { endVirtiofsd, startVirtiofsd, type VirtiofsdConfig } from "./vhost-user-fs/virtiofsd.ts";
