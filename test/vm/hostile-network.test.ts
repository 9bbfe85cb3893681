/**
 * A guest with every right there is in it, on a network where next to nothing is allowed, tries every way out that we could think of
 * (test/programs/hostile-guest.ts). The host is one of the test's own, which counts what comes to it.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runTool } from "../../src/base/index.ts";
import { hostNameServer } from "../../src/network/host-facts.ts";
import { type CliResult, runCli, type TestScope, test } from "../support/harness.ts";
import { type NetworkHost, networkHost } from "../support/network-host.ts";

const GUEST = join(import.meta.dirname, "../programs/hostile-guest.ts");
/** Of the range that is nobody's, and of the public. */
const [OTHER, PUBLIC] = ["198.18.0.10", "9.9.9.10"];
const GATEWAY = "169.254.1.1";
/** What a flood may be at most, in bytes per second. */
const RATE = 256 * 1_024;

/** A name server that answers nothing: what it has heard, as hexadecimal digits. */
async function listener(t: TestScope, host: NetworkHost): Promise<() => string> {
  const script = `const s = require("dgram").createSocket("udp4"); s.on("message", (m) => console.log(m.toString("hex")));
    s.bind(53, () => console.log("up"));`;
  const [program = "", ...words] = host.within;
  const child = spawn(program, [...words, process.execPath, "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });
  let heard = "";
  child.stdout.on("data", (chunk: Buffer) => {
    heard += chunk.toString();
  });
  await once(child.stdout, "data");
  return () => heard;
}

test("a hostile guest finds no way out but the one that is allowed", async (t) => {
  const host = await networkHost(t);
  const nameServer = (await hostNameServer()) ?? "10.99.0.53";
  const cli = (...args: readonly string[]): Promise<CliResult> => runCli(t, args, { within: host.within });
  const output = async (...args: readonly string[]): Promise<string> => {
    const { status, stdout, stderr } = await cli(...args);
    assert.equal(status, 0, stderr);
    return stdout.toString().trim();
  };
  for (const port of [9001, 9002]) await host.serve("0.0.0.0", port);
  await host.serve("127.0.0.1", 9003);
  const server = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
  await output("run", "-d", "--name", "neighbour", "--network", "bridge", "-p", "8080:80", ...server);
  const neighbour: string = JSON.parse(await output("inspect", "--json", "neighbour")).network.addresses[0];
  const rules = ["--network-default", "closed", "--allow", `${host.address}:9001`, "--allow", "localhost"];
  const idle = ["--cap-add", "ALL", "--net-rate-out", String(RATE), ...rules, "node", "sleep", "100000"];
  const modes = [
    { name: "on-bridge", mode: "bridge", ofHost: "10.88.0.1" },
    { name: "on-user", mode: "user", ofHost: "169.254.77.2" },
  ] as const;
  for (const { name, mode } of modes) await output("run", "-d", "--name", name, "--network", mode, ...idle);
  // There after the rules were written, which know nothing of them.
  for (const address of [OTHER, PUBLIC, nameServer]) {
    await host.run("ip", "address", "add", `${address}/32`, "dev", "out0");
  }
  await host.serve("0.0.0.0", 80);
  const heard = await listener(t, host);
  const watch = `table inet watch {
    counter forged { }
    counter six { }
    counter flood { }
    chain arrive {
      type filter hook prerouting priority -400; policy accept;
      udp dport 9001 counter name flood
      meta nfproto ipv6 iifname "bj-*" counter name six
      ip saddr ${neighbour} iifname "bj-*" meta l4proto { tcp, icmp } ct state new counter name forged
    }
  }
  `;
  await runTool("nsenter", [...host.within.slice(1), "nft", "-f", "-"], { input: Buffer.from(watch) });
  const counter = async (name: string, what: "bytes" | "packets"): Promise<number> => {
    const text = (await host.run("nft", "list", "counter", "inet", "watch", name)) ?? "";
    return Number(new RegExp(`${what} (\\d+)`).exec(text)?.[1]);
  };

  const program = await readFile(GUEST, "utf8");
  for (const { name, ofHost } of modes) {
    const hosts = [GATEWAY, host.address, ofHost];
    const plan = {
      allowed: `${host.address}:9001`,
      closed: [
        ...hosts.flatMap((at) => [`${at}:9002`, `${at}:9003`, `${at}:8080`]),
        ...[neighbour, `${neighbour}:8080`, OTHER, PUBLIC, nameServer],
      ],
      pings: [host.address, ofHost, neighbour, PUBLIC],
      neighbour,
      nameServers: [GATEWAY, nameServer, PUBLIC, ofHost],
      gateway: GATEWAY,
    };
    const arguments_ = ["--input-type=module-typescript", "-e", program, JSON.stringify(plan)];
    const { tried, reached } = JSON.parse(await output("exec", name, "node", ...arguments_));
    assert.deepEqual(reached, ["allowed at first", "allowed at last"], `${name}: ${tried.length} ways`);
  }
  // Of all questions, the ones for the address of the name that is allowed came out, and nothing with them.
  await sleep(500);
  const questions = heard()
    .split("\n")
    .slice(1)
    .filter((line) => line !== "");
  assert.ok(questions.length > 0);
  assert.deepEqual(
    [...new Set(questions.map((line) => line.slice(4)))],
    ["01000001000000000000096c6f63616c686f73740000010001"],
  );
  assert.deepEqual([await counter("forged", "packets"), await counter("six", "packets")], [0, 0]);

  // A flood: no more of it comes out than is allowed, and the neighbour is still served.
  const flood = `const s = require("dgram").createSocket("udp4"), m = Buffer.alloc(1000), end = Date.now() + 4000;
    (function go() { if (Date.now() > end) return s.close(); for (let i = 0; i < 50; i++) s.send(m, 9001, "${host.address}"); setImmediate(go); })()`;
  const flooding = output("exec", "on-bridge", "node", "-e", flood);
  const get = (): Promise<string | undefined> =>
    host.run("curl", "-sf", "-m", "10", `http://${host.address}:8080/passwd`);
  for (let count = 0; count < 3; count += 1) assert.match((await get()) ?? "", /root/);
  const begunMs = performance.now();
  await flooding;
  const seconds = 5 + (performance.now() - begunMs) / 1_000;
  const bytes = await counter("flood", "bytes");
  assert.ok(bytes > 0 && bytes < RATE * seconds, `${bytes} bytes in ${seconds} s`);

  await output("rm", "-f", "on-bridge", "on-user", "neighbour");
  // What was denied was told.
  const events = (await output("events", "--json", "--no-follow", "--after", "0"))
    .split("\n")
    .map((line) => JSON.parse(line));
  for (const { name } of modes) {
    const denied = events.filter((event) => event.kind === "denied" && event.sandboxName === name);
    assert.ok((denied.at(-1)?.packets ?? 0) > 20, name);
  }
  assert.doesNotMatch((await host.run("ip", "-brief", "link")) ?? "", /bj/);
});
