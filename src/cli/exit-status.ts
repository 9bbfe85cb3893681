/** Exit statuses, as docker has them: the workload's own where there is one, otherwise these. */
import type { BelljarError } from "../base/index.ts";

export const EXIT_BELLJAR_FAILED = 125;
export const EXIT_NOT_EXECUTABLE = 126;
export const EXIT_NOT_FOUND = 127;

/** Status for an error of Belljar's own; 128 + 2 when the user interrupted. */
export function exitStatusOf(error: BelljarError): number {
  switch (error.reason) {
    case "COMMAND_NOT_FOUND":
      return EXIT_NOT_FOUND;
    case "COMMAND_NOT_EXECUTABLE":
      return EXIT_NOT_EXECUTABLE;
    case "CANCELLED": {
      const signal = error.facts["signalNumber"];
      return typeof signal === "number" ? 128 + signal : EXIT_BELLJAR_FAILED;
    }
    default:
      return EXIT_BELLJAR_FAILED;
  }
}
