/**
 * The way out of a user-mode network: slirp4netns, which turns what leaves the namespace into connections of an ordinary process on the
 * host, and listens on the ports that are published. It lives in a session of its own, as the VMM does.
 */
import { spawn } from "node:child_process";
import { open, readdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import {
  BelljarError,
  goWithGuests,
  hasErrno,
  identifyProcess,
  isAlive,
  networkLimits,
  type ProcessIdentity,
  parseJson,
  publishStep,
  signalProcess,
  withDeadline,
} from "../base/index.ts";
import { namespacePath, UPLINK, USER_UPLINK } from "./layout.ts";
import { explain } from "./namespace.ts";
import { type PublishedPort, portText } from "./ports.ts";
import type { OwnNetworkState } from "./state.ts";

const PROGRAM = "slirp4netns";
/** Where it says that it is ready. */
const READY_FD = 3;

/** A pure function of what is asked. */
export function slirpArguments(namespace: string, apiSocket: string, ports: readonly PublishedPort[]): string[] {
  return [
    PROGRAM,
    "--netns-type=path",
    "--configure",
    "--mtu=65520",
    `--cidr=${USER_UPLINK.range}`,
    // The rules close the host's loopback, and say whom the guest asks for names; this is the second lock. With it answers over UDP to
    // the host's own loopback are lost (libslirp 4.7).
    ...(hasUdp(ports) ? [] : ["--disable-host-loopback"]),
    "--disable-dns",
    // Without files, without new programs, with one right: to listen on low ports.
    "--enable-sandbox",
    "--enable-seccomp",
    `--ready-fd=${READY_FD}`,
    `--api-socket=${apiSocket}`,
    namespacePath(namespace),
    UPLINK,
  ];
}

function hasUdp(ports: readonly PublishedPort[]): boolean {
  return ports.some(({ protocol }) => protocol === "udp");
}

/** What it leaves in the sandbox's run directory. */
const FILES = { api: "slirp.sock", ready: "slirp.ready", log: "slirp.log" } as const;

/**
 * Starts it, and waits until it is ready and every port is published. On any error nothing of it is left.
 * @param onSpawn told of it before it is waited for
 * @throws BelljarError `NETWORK_UNAVAILABLE`, `NETWORK_FAILED`, `PORT_IN_USE`, `DEADLINE_EXCEEDED`, `CANCELLED`
 */
export async function startSlirp(
  namespace: string,
  ports: readonly PublishedPort[],
  runDir: string,
  onSpawn: (identity: ProcessIdentity) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const [api, ready, log] = [FILES.api, FILES.ready, FILES.log].map((name) => join(runDir, name));
  if (api === undefined || ready === undefined || log === undefined) return;
  await rm(api, { force: true });
  const { identity, ended } = await publishStep("child", PROGRAM, () =>
    spawnDetached(slirpArguments(namespace, api, ports), ready, log),
  );
  try {
    await onSpawn(identity);
    const timeoutMs = networkLimits.uplinkStartTimeoutMs;
    await withDeadline({ timeoutMs, what: `the start of ${PROGRAM}`, signal }, async (stop) => {
      while (!stop.aborted && (await readText(ready)) === "") {
        const how = await Promise.race([ended, pause()]);
        if (how === undefined) continue;
        const words = (await readText(log)).trim().split("\n").slice(-3).join("; ");
        throw explain(PROGRAM, new BelljarError("HOST_TOOL_FAILED", `${PROGRAM} ${how}: ${words.slice(-1_000)}`));
      }
    });
    await publishPorts(ports, runDir);
  } catch (error) {
    await endSlirp(identity);
    throw error;
  }
}

/** The one that waits in a prepared namespace, if it can publish these ports; otherwise a new one. `startSlirp` says the rest. */
export async function openSlirp(
  { namespace, ports, uplink }: OwnNetworkState,
  runDir: string,
  onSpawn: (identity: ProcessIdentity) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (uplink !== undefined && !hasUdp(ports) && (await isAlive(uplink))) return await publishPorts(ports, runDir);
  if (uplink !== undefined) await endSlirp(uplink);
  await startSlirp(namespace, ports, runDir, onSpawn, signal);
}

/** One that is gone is success. */
export async function endSlirp(identity: ProcessIdentity): Promise<void> {
  await publishStep("child", `end ${PROGRAM}`, async () => {
    for (const word of ["SIGTERM", "SIGKILL"] as const) {
      await signalProcess(identity, word);
      const endMs = performance.now() + networkLimits.uplinkEndTimeoutMs;
      while (performance.now() < endMs) {
        if (!(await isAlive(identity))) return;
        await pause();
      }
    }
    throw new BelljarError("INTERNAL", `${PROGRAM}, process ${identity.pid}, is still there after SIGKILL`);
  });
}

/** Of this namespace, whoever started it: one that was not written down yet. */
export async function findSlirp(namespace: string): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const words = (await readText(`/proc/${name}/cmdline`)).split("\0");
    if (!words.includes(PROGRAM) || !words.includes(namespacePath(namespace))) continue;
    const identity = await identifyProcess(Number(name));
    if (identity !== undefined) found.push(identity);
  }
  return found;
}

/** By the one whose files are in this directory. @throws BelljarError `PORT_IN_USE`, `NETWORK_FAILED` */
async function publishPorts(ports: readonly PublishedPort[], runDir: string): Promise<void> {
  const api = join(runDir, FILES.api);
  for (const port of ports) await publishStep("host", "publish a port", () => publishPort(api, port));
}

/** Under the host's number: the namespace's rules turn it into the guest's. */
async function publishPort(apiSocket: string, port: PublishedPort): Promise<void> {
  const { protocol, hostAddress, hostPort } = port;
  const { address } = USER_UPLINK;
  const answer = await ask(apiSocket, {
    execute: "add_hostfwd",
    arguments: {
      proto: protocol,
      host_addr: hostAddress,
      host_port: hostPort,
      guest_addr: address,
      guest_port: hostPort,
    },
  });
  const problem = parseJson(answer, PROGRAM, "NETWORK_FAILED")
    .field("error")
    .optional((error) => error.field("desc").string({ maxLength: 1_024 }));
  if (problem === undefined) return;
  throw new BelljarError("PORT_IN_USE", `the port ${portText(port)} of the host cannot be had: ${problem}`, {
    facts: { hostAddress, hostPort, protocol },
  });
}

/** One question, one answer. */
async function ask(apiSocket: string, question: object): Promise<string> {
  const timeoutMs = networkLimits.uplinkStartTimeoutMs;
  return await withDeadline({ timeoutMs, what: `an answer of ${PROGRAM}` }, async (stop) => {
    const socket = connect(apiSocket);
    const onStop = (): void => void socket.destroy();
    stop.addEventListener("abort", onStop, { once: true });
    try {
      socket.end(JSON.stringify(question));
      let text = "";
      for await (const piece of socket.setEncoding("utf8")) {
        text += String(piece);
        if (text.length > networkLimits.uplinkAnswerMaxLength) break;
      }
      return text;
    } catch (cause) {
      throw new BelljarError("NETWORK_FAILED", `${PROGRAM} did not answer`, { cause });
    } finally {
      stop.removeEventListener("abort", onStop);
      socket.destroy();
    }
  });
}

/**
 * In a mount namespace of its own, and private: it unmounts everything from its sight, and where mounts are shared with it that would be
 * everybody's.
 */
async function spawnDetached(
  command: readonly string[],
  readyPath: string,
  logPath: string,
): Promise<{ readonly identity: ProcessIdentity; readonly ended: Promise<string> }> {
  const ready = await open(readyPath, "w", 0o600);
  const log = await open(logPath, "w", 0o600);
  try {
    const child = spawn("unshare", ["--mount", "--propagation", "private", "--", ...command], {
      detached: true,
      cwd: "/",
      stdio: ["ignore", log.fd, log.fd, ready.fd],
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
    });
    goWithGuests(child.pid);
    const ended = new Promise<string>((resolve) => {
      child.on("exit", (code, signal) =>
        resolve(code === null ? `was ended by ${signal}` : `ended with status ${code}`),
      );
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    child.unref();
    const identity = child.pid === undefined ? undefined : await identifyProcess(child.pid);
    if (identity === undefined) throw new BelljarError("NETWORK_FAILED", `${PROGRAM} ${await ended} at once`);
    return { identity, ended };
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    throw explain("unshare", new BelljarError("HOST_TOOL_MISSING", "the program unshare is missing", { cause: error }));
  } finally {
    await ready.close();
    await log.close();
  }
}

async function readText(path: string): Promise<string> {
  return await readFile(path, "utf8").catch(() => "");
}

async function pause(): Promise<undefined> {
  await new Promise((resolve) => setTimeout(resolve, networkLimits.uplinkPollMs));
}
