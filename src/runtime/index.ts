/** All sandboxes of one root: made, found again, recovered, changed and removed, whoever asks. */
export type * from "./interface.ts";
