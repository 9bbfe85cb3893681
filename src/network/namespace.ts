/**
 * A sandbox's namespace: made, filled and removed by the host's own tools. All that is in it goes with it, and it has a name that
 * follows from the sandbox's id, so that whoever comes after a kill removes the whole by its name.
 */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { BelljarError, hasErrno, messageChain, runTool } from "../base/index.ts";
import { GATEWAY, GATEWAY_MAC, namespacePath, TAP } from "./layout.ts";
import type { OwnNetworkState } from "./state.ts";

/** Those of one root begin alike, and unlike those of any other. */
export function namespacePrefix(rootDir: string): string {
  return `belljar-${createHash("sha256").update(rootDir).digest("hex").slice(0, 8)}-`;
}

/**
 * Runs these lines in a shell, as far as the first that fails. One program for all of it: to start one costs this process, with all that it
 * has mapped, several milliseconds in which it does nothing else.
 * @throws BelljarError `NETWORK_UNAVAILABLE`, `NETWORK_FAILED`; `CANCELLED`
 */
export async function runLines(lines: readonly string[], signal?: AbortSignal | undefined): Promise<void> {
  await tool("sh", ["-eu"], { input: Buffer.from([...lines, ""].join("\n")), signal });
}

/** What makes a link to the outside usable, which is there. */
export interface UplinkLines {
  /** As lines of a shell's. */
  readonly settings: readonly string[];
  /** As lines of ip's. */
  readonly links: readonly string[];
}

/** A way out, on both of its sides. */
export interface Uplink {
  /** On the host, as lines of a shell's. */
  readonly host: readonly string[];
  readonly uplink: UplinkLines;
}

/** The namespace, with the VMM's end of the link to the guest, which is down: what a VMM needs to be started there. Nothing gets in or out. */
export function emptyLines({ namespace }: OwnNetworkState): readonly string[] {
  return [`ip netns add ${namespace}`, ...linesWithin(namespace, linkLines)];
}

/** What an empty one lacks to be a network. The rules come before the link is up. */
export function openLines(state: OwnNetworkState, rules: string): readonly string[] {
  return linesWithin(state.namespace, [...ruleText(rules), ...wayLines(state)]);
}

/**
 * A namespace with all that is in it, and the way out, in one go.
 * @param rules none where nothing gets through that way out yet
 */
export function placeLines(
  state: OwnNetworkState,
  rules: string | undefined,
  { host, uplink }: Uplink = NO_UPLINK,
): readonly string[] {
  const { namespace } = state;
  const own = rules === undefined ? [] : ruleText(rules);
  const within = [...linkLines, ...own, ...uplink.settings, ...wayLines(state, uplink.links)];
  return [`ip netns add ${namespace}`, ...host, ...linesWithin(namespace, within)];
}

/** Rules for a namespace that has everything else. */
export function ruleLines({ namespace }: OwnNetworkState, rules: string): readonly string[] {
  const [nft = "", ...text] = ruleText(rules);
  return [`nsenter --net=${namespacePath(namespace)} -- ${nft}`, ...text];
}

const NO_UPLINK: Uplink = { host: [], uplink: { settings: [], links: [] } };

const linkLines: readonly string[] = [
  // IPv6 is closed by not being there.
  "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
  "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
  "echo 1 >/proc/sys/net/ipv4/ip_forward",
  "echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects",
  "echo 0 >/proc/sys/net/ipv4/conf/default/send_redirects",
  `ip tuntap add ${TAP} mode tap`,
];

/** These lines, in a shell in the namespace. */
function linesWithin(namespace: string, lines: readonly string[]): readonly string[] {
  return [`nsenter --net=${namespacePath(namespace)} -- sh -eu <<'WITHIN'`, ...lines, "WITHIN"];
}

function ruleText(rules: string): readonly string[] {
  return ["nft -f - <<'RULES'", rules, "RULES"];
}

/** @param uplink lines of ip's for the way out */
function wayLines({ address, macAddress, mtu }: OwnNetworkState, uplink: UplinkLines["links"] = []): readonly string[] {
  return [
    "ip -batch - <<'LINKS'",
    "link set lo up",
    `link set ${TAP} address ${GATEWAY_MAC} mtu ${mtu} up`,
    `address add ${GATEWAY}/32 dev ${TAP}`,
    `route add ${address}/32 dev ${TAP}`,
    // Nobody has to be asked, and nobody can answer in the guest's place.
    `neighbour replace ${address} lladdr ${macAddress} dev ${TAP} nud permanent`,
    ...uplink,
    "LINKS",
  ];
}

/** Runs a program of the host's in the namespace, and answers what it printed. */
export async function inNamespace(
  namespace: string,
  command: readonly string[],
  options: { readonly input?: Uint8Array; readonly signal?: AbortSignal | undefined } = {},
): Promise<string> {
  return await tool("nsenter", [`--net=${namespacePath(namespace)}`, "--", ...command], options);
}

/** What is not there is success. */
export async function removeNamespace(name: string): Promise<void> {
  try {
    await tool("ip", ["netns", "delete", name], {});
  } catch (error) {
    if ((await listNamespaces(name)).includes(name)) throw error;
  }
}

export async function listNamespaces(prefix: string): Promise<string[]> {
  try {
    return (await readdir("/run/netns")).filter((name) => name.startsWith(prefix));
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}

/** The Debian package of each program. */
const PACKAGES: Readonly<Record<string, string>> = {
  ip: "iproute2",
  nft: "nftables",
  nsenter: "util-linux",
  slirp4netns: "slirp4netns",
  tc: "iproute2",
  unshare: "util-linux",
};

/** What does without it. */
const OTHERWISE: Readonly<Record<string, string>> = { slirp4netns: ", or use `--network bridge`" };

/** @throws BelljarError `NETWORK_UNAVAILABLE` for what the host does not have or allow, `NETWORK_FAILED` for the rest */
export async function tool(
  program: string,
  args: readonly string[],
  options: { readonly input?: Uint8Array; readonly signal?: AbortSignal | undefined },
): Promise<string> {
  try {
    return (await runTool(program, args, options)).stdout.toString("utf8");
  } catch (thrown) {
    throw explain(program, BelljarError.from(thrown));
  }
}

export function explain(program: string, error: BelljarError): BelljarError {
  if (error.reason === "CANCELLED" || error.reason === "DEADLINE_EXCEEDED") return error;
  const words = messageChain(error).join(": ");
  const absent =
    error.reason === "HOST_TOOL_MISSING" ? program : /(\w+): (?:command )?not found|execute (\w+):/.exec(words)?.[1];
  if (absent !== undefined) {
    return new BelljarError(
      "NETWORK_UNAVAILABLE",
      `the program ${absent}, which this network needs, is not installed`,
      {
        facts: { tool: absent },
        remedy: `Install the Debian package ${PACKAGES[absent] ?? absent}${OTHERWISE[absent] ?? ""}.`,
        cause: error,
      },
    );
  }
  if (/not permitted|permission denied/i.test(words)) {
    return new BelljarError("NETWORK_UNAVAILABLE", `this user may not make a network: ${words}`, {
      remedy: "Run as root.",
      cause: error,
    });
  }
  if (/\/dev\/net\/tun/.test(words)) {
    return new BelljarError("NETWORK_UNAVAILABLE", `the host's kernel has no /dev/net/tun: ${words}`, {
      remedy: "Load the kernel module tun.",
      cause: error,
    });
  }
  if (/unknown device type/i.test(words)) {
    return new BelljarError("NETWORK_UNAVAILABLE", `the host's kernel has no bridge or no veth: ${words}`, {
      remedy: "Load the kernel modules bridge and veth, or use `--network user`.",
      cause: error,
    });
  }
  if (/could not process rule: (?:no such file|operation not supported|protocol not supported)/i.test(words)) {
    return new BelljarError("NETWORK_UNAVAILABLE", `the host's kernel lacks a part of nftables: ${words}`, {
      remedy: "Load the kernel modules nf_tables, nft_ct, nft_nat, nft_masq, nft_fib_inet and nft_reject_inet.",
      cause: error,
    });
  }
  return new BelljarError("NETWORK_FAILED", `the sandbox's network could not be set up: ${words}`, { cause: error });
}
