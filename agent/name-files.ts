/**
 * The files by which a container's programs find names: /etc/hosts and /etc/hostname from the sandbox's host name,
 * /etc/resolv.conf from its DNS lines. Each container has them for itself, in the guest's memory, and may change them; new DNS lines
 * reach containers that run.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError } from "../src/base/errors.ts";
import type { PlannedFile } from "../src/protocol/wake.ts";
import type { BindMount } from "./spec-changes.ts";

const LINES_MAX = 64;
const LINE_MAX_LENGTH = 1024;

export class NameFiles {
  #hostname = "";
  #dnsLines: readonly string[] = [];
  #hostLines: readonly string[] = [];

  /** Empty leaves as it is. Answers whether something is new. @throws BelljarError `INVALID_ARGUMENT` */
  configure(hostname: string, dnsLines: readonly string[], hostLines: readonly string[] = this.#hostLines): boolean {
    const all = [...dnsLines, ...hostLines];
    if (all.length > LINES_MAX || all.some((line) => line.length > LINE_MAX_LENGTH || /[\0\n]/.test(line))) {
      throw new BelljarError("INVALID_ARGUMENT", "the DNS lines or those of hosts are too many, too long, or no lines");
    }
    const before = JSON.stringify([this.#hostname, this.#dnsLines, this.#hostLines]);
    this.#hostLines = [...hostLines];
    if (hostname !== "") this.#hostname = hostname;
    if (dnsLines.length > 0) this.#dnsLines = [...dnsLines];
    return before !== JSON.stringify([this.#hostname, this.#dnsLines, this.#hostLines]);
  }

  /** Writes the files that there is something to write into, in place where they are there. Answers their mounts. */
  async write(dir: string): Promise<readonly BindMount[]> {
    await mkdir(dir, { recursive: true, mode: 0o755 });
    const mounts: BindMount[] = [];
    for (const [name, text] of textsOf(this.#hostname, lines(this.#dnsLines), lines(this.#hostLines))) {
      const source = join(dir, name);
      // Whoever reads it just now finds no beginning of what was there anyway.
      const present = await readFile(source, "utf8").catch(() => undefined);
      if (present !== text) await writeFile(source, text, { mode: 0o644 });
      mounts.push({ source, destination: `/etc/${name}`, options: ["nosuid", "noexec", "nodev"] });
    }
    return mounts;
  }

  /** Those that are in a container's directory as a copy is to have them, with words that stand for what is not known yet. */
  plan(dir: string): readonly PlannedFile[] {
    const hostname = this.#hostname === "" ? "" : "{hostname}";
    const dns = this.#dnsLines.length === 0 ? "" : "{dns}";
    return textsOf(hostname, dns, "{hosts}").map(([name, text]) => ({ path: join(dir, name), text }));
  }
}

function lines(each: readonly string[]): string {
  return each.map((line) => `${line}\n`).join("");
}

function textsOf(hostname: string, dns: string, others: string): readonly (readonly [name: string, text: string])[] {
  const texts: (readonly [string, string])[] = [];
  if (hostname !== "") {
    const local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    texts.push(["hosts", `${local}127.0.1.1\t${hostname}\n${others}`], ["hostname", `${hostname}\n`]);
  }
  if (dns !== "") texts.push(["resolv.conf", dns]);
  return texts;
}
