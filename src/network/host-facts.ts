/** What the host knows of its own network: its addresses, and who answers its questions for names. */
import { lookup } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { networkLimits, withDeadline } from "../base/index.ts";
import { IPV4 } from "./addresses.ts";
import type { LookUp } from "./policy.ts";

export function hostAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return all.filter(({ family }) => family === "IPv4").map(({ address }) => address);
}

/** Where resolved keeps the servers that it asks itself, which /etc/resolv.conf does not name then. */
const RESOLVER_FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/** The first server that can be reached from elsewhere than the host itself. */
export async function hostNameServer(files: readonly string[] = RESOLVER_FILES): Promise<string | undefined> {
  for (const path of files) {
    const text = await readFile(path, "utf8").catch(() => "");
    const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, server = ""]) => server);
    const found = servers.find((server) => IPV4.test(server) && !server.startsWith("127."));
    if (found !== undefined) return found;
  }
  return undefined;
}

export const lookUpName: LookUp = async (name) => {
  const timeoutMs = networkLimits.lookUpTimeoutMs;
  const found = await withDeadline({ timeoutMs, what: `looking up ${name}` }, async () => {
    // A name that does not exist has no addresses.
    return await lookup(name, { all: true, family: 4 }).catch(() => []);
  });
  return found.map(({ address }) => address);
};
