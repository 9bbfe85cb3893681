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

const COST_OF_REQUIRED = "nothing can be run";

/** Looks into one thing; a failure is an answer, not an error, unless the caller gave up. What is not there has a cost and a remedy. */
export async function look(
  name: string,
  required: boolean,
  work: () => Promise<Omit<Capability, "name" | "required">>,
): Promise<Capability> {
  const usual = required ? COST_OF_REQUIRED : "what needs it cannot be used";
  try {
    const found = await work();
    return { name, required, ...(found.status === "yes" ? {} : { cost: usual }), ...found };
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (error.reason === "CANCELLED") throw error;
    const detail = messageChain(error).join(": ");
    const remedy = error.remedy ?? "Put right what is said here, and ask again.";
    return { name, required, status: "no", detail, cost: usual, remedy };
  }
}
