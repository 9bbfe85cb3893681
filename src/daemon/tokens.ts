/**
 * The tokens that open the API over TCP: a file with one a line, `NAME TOKEN`; lines that begin with `#` are passed over. Names are for
 * the log. Only hashes are kept, and they are compared in constant time.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { BelljarError, checkName } from "../base/index.ts";

/** Shorter ones can be guessed. */
const TOKEN_MIN_LENGTH = 32;
const TOKENS_MAX = 256;
const OTHERS = 0o077;

export class Tokens {
  readonly #hashes: ReadonlyMap<string, Buffer>;

  private constructor(hashes: ReadonlyMap<string, Buffer>) {
    this.#hashes = hashes;
  }

  /** @throws BelljarError `INVALID_ARGUMENT` for a file that others can read, or that has no token that will do */
  static async read(path: string): Promise<Tokens> {
    if (((await stat(path)).mode & OTHERS) !== 0) {
      throw new BelljarError("INVALID_ARGUMENT", `others than its owner can read the tokens in ${path}`, {
        remedy: `Run \`chmod 600 ${path}\`.`,
      });
    }
    return Tokens.parse(await readFile(path, "utf8"), path);
  }

  static parse(text: string, path: string): Tokens {
    const hashes = new Map<string, Buffer>();
    for (const [index, line] of text.split("\n").entries()) {
      if (line.trim() === "" || line.startsWith("#")) continue;
      const [name = "", token = "", ...rest] = line.trim().split(/\s+/);
      checkName(name, "the name of a token");
      if (token.length < TOKEN_MIN_LENGTH || rest.length > 0 || hashes.has(name) || hashes.size >= TOKENS_MAX) {
        throw new BelljarError("INVALID_ARGUMENT", `line ${index + 1} of ${path} is not \`NAME TOKEN\``, {
          remedy: `A token has at least ${TOKEN_MIN_LENGTH} characters; names are unique, and ${TOKENS_MAX} at most. \`openssl rand -hex 32\` makes one.`,
        });
      }
      hashes.set(name, hashOf(token));
    }
    if (hashes.size > 0) return new Tokens(hashes);
    throw new BelljarError("INVALID_ARGUMENT", `${path} has no token`, {
      remedy: 'Write one: `echo "me $(openssl rand -hex 32)"`.',
    });
  }

  /** Name of the token in an `Authorization` header. */
  find(authorization: string | undefined): string | undefined {
    const token = /^Bearer (\S+)$/i.exec(authorization ?? "")?.[1];
    if (token === undefined) return undefined;
    const hash = hashOf(token);
    let found: string | undefined;
    for (const [name, each] of this.#hashes) if (timingSafeEqual(each, hash)) found = name;
    return found;
  }
}

function hashOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
