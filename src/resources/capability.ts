/** One line of `belljar doctor`. */
import { BelljarError, messageChain } from "../base/index.ts";

export interface Capability {
  readonly name: string;
  /** `degraded`: it works, at the cost that is said. */
  readonly status: "yes" | "no" | "degraded";
  /** What was found, or what is wrong. */
  readonly detail: string;
  /** What its absence costs. */
  readonly cost?: string;
  readonly remedy?: string;
  /** Belljar can run nothing without it. */
  readonly required: boolean;
}

/** Looks into one thing; a failure is an answer, not an error, unless the caller gave up. */
export async function look(
  name: string,
  required: boolean,
  work: () => Promise<Omit<Capability, "name" | "required">>,
): Promise<Capability> {
  try {
    return { name, required, ...(await work()) };
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (error.reason === "CANCELLED") throw error;
    const detail = messageChain(error).join(": ");
    return { name, required, status: "no", detail, ...(error.remedy === undefined ? {} : { remedy: error.remedy }) };
  }
}
