/** Digests of the form `sha256:<64 hex digits>`, and a meter that hashes and counts a stream on its way. */
import { createHash, type Hash } from "node:crypto";
import { BelljarError } from "../base/index.ts";

const SHA256 = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: string): boolean {
  return SHA256.test(text);
}

/** The part after `sha256:`, safe as a file name. The digest must have passed `isDigest`. */
export function digestHex(digest: string): string {
  return digest.slice("sha256:".length);
}

export function digestOf(data: Uint8Array): string {
  return `sha256:${createHash("sha256").update(data).digest("hex")}`;
}

export class Meter {
  readonly #hash: Hash | undefined;
  #bytes = 0;

  /** @param isHashed otherwise it counts only, and has no digest */
  constructor(isHashed = true) {
    this.#hash = isHashed ? createHash("sha256") : undefined;
  }

  get bytes(): number {
    return this.#bytes;
  }

  async *through(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      this.#hash?.update(chunk);
      this.#bytes += chunk.length;
      yield chunk;
    }
  }

  /** Once, at the end. */
  digest(): string {
    if (this.#hash === undefined) throw new BelljarError("INTERNAL", "nothing was hashed");
    return `sha256:${this.#hash.digest("hex")}`;
  }
}
