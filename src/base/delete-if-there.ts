/** Handles delete what they have made when they are disposed of. */
import { BelljarError } from "./errors.ts";

export interface Deletable {
  delete(options: { readonly force: boolean }): Promise<void>;
}

/** Somebody else may have been faster. */
export async function deleteIfThere(made: Deletable): Promise<void> {
  try {
    await made.delete({ force: true });
  } catch (error) {
    if (!["SANDBOX_NOT_FOUND", "CONTAINER_NOT_FOUND"].includes(BelljarError.from(error).reason)) throw error;
  }
}
