/** Sandboxes with a network, on a host of the test's own: real namespaces, rules, guests; nothing leaves the host's namespace. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type CliResult, runCli, type TestScope, test } from "../support/harness.ts";
import { type NetworkHost, networkHost } from "../support/network-host.ts";

type Cli = (...args: readonly string[]) => Promise<CliResult>;

async function setUp(t: TestScope): Promise<{ readonly host: NetworkHost; readonly cli: Cli }> {
  const host = await networkHost(t);
  return { host, cli: (...args) => runCli(t, args, { within: host.within }) };
}

/** What the command printed; fails with what it said when it failed. */
async function output(result: Promise<CliResult>): Promise<string> {
  const { status, stdout, stderr } = await result;
  assert.equal(status, 0, stderr);
  return stdout.toString().trim();
}

/** In the guest: answers over HTTP, and says over UDP what it heard. */
const server = [
  "node",
  "-e",
  `require("http").createServer((q, r) => r.end("hello from " + require("os").hostname() + "\\n")).listen(80);
   const s = require("dgram").createSocket("udp4"); s.on("message", (m, r) => s.send(m, r.port, r.address)); s.bind(5353);`,
];

test("a user-mode network: published ports lead in, the way out keeps to the rules", async (t) => {
  const { host, cli } = await setUp(t);
  await host.serve("127.0.0.1", 9000);
  await host.serve(host.address, 9001);
  await host.serve(host.address, 9002);
  const ports = ["-p", "127.0.0.1:8080:80", "-p", "8081:80", "-p", "80", "-p", "127.0.0.1:5300:5353/udp"];
  const rules = ["--allow", `${host.address}:9001`, "--deny", "192.0.2.0/24"];
  const id = await output(
    cli("run", "-d", "--name", "web", "--network", "user", ...ports, ...rules, "--hostname", "web", "node", ...server),
  );
  const info = JSON.parse(await output(cli("inspect", "--json", "web")));
  assert.deepEqual([info.network.mode, info.network.addresses], ["user", ["10.0.2.15"]]);
  const chosen = info.ports.find((port: { hostPort: number }) => ![8080, 8081, 5300].includes(port.hostPort));
  assert.deepEqual(chosen, { hostAddress: "0.0.0.0", hostPort: chosen.hostPort, containerPort: 80, protocol: "tcp" });

  // The server may still be starting.
  const get = async (url: string): Promise<string | undefined> => {
    for (const endMs = performance.now() + 60_000; performance.now() < endMs; ) {
      const answer = await host.run("curl", "-sS", "-m", "10", url);
      if (answer !== undefined) return answer;
      await sleep(200);
    }
    return undefined;
  };
  for (const at of ["127.0.0.1:8080", "127.0.0.1:8081", `${host.address}:8081`, `127.0.0.1:${chosen.hostPort}`]) {
    assert.equal(await get(`http://${at}/`), "hello from web\n", at);
  }
  const echo = `const s = require("dgram").createSocket("udp4");
    s.on("message", (m) => { console.log(String(m)); process.exit(); });
    setInterval(() => s.send("ping", 5300, "127.0.0.1"), 300); setTimeout(() => process.exit(1), 10000);`;
  assert.equal(await host.run(process.execPath, "-e", echo), "ping\n");

  const fetcher = `require("http").get(process.argv[1], { timeout: 5000 }, (r) => r.pipe(process.stdout))
    .on("timeout", function () { this.destroy(new Error("timeout")); })
    .on("error", (e) => process.stderr.write("failed: " + e));`;
  const fetch = async (address: string): Promise<string> => {
    const { stdout, stderr } = await cli("exec", "web", "node", "-e", fetcher, `http://${address}/x`);
    return stdout.toString() || stderr;
  };
  assert.equal(await fetch(`${host.address}:9001`), `served /x to ${host.address}`);
  assert.match(await fetch(`${host.address}:9002`), /failed: /);
  // The other end of the way out is not the host's loopback.
  assert.match(await fetch("169.254.77.2:9000"), /failed: /);
  assert.match(await fetch("169.254.1.1:9000"), /failed: /);
  const sees = await output(cli("exec", "web", "node", "-p", "JSON.stringify(os.networkInterfaces().eth0)"));
  assert.deepEqual(
    JSON.parse(sees).filter(({ family }: { family: string }) => family === "IPv4")[0].mac,
    info.network.macAddress,
  );

  const taken = await cli("run", "--network", "user", "-p", "127.0.0.1:8080:80", "busybox", "true");
  assert.equal(taken.status, 125);
  assert.match(taken.stderr, /127\.0\.0\.1:8080\/tcp of the host is in use/);

  // A fork answers on ports of its own, under another hardware address; the source goes on.
  await output(cli("fork", "web", "--name", "twin"));
  const twin = JSON.parse(await output(cli("inspect", "--json", "twin")));
  assert.notEqual(twin.network.macAddress, info.network.macAddress);
  for (const { hostAddress, hostPort, protocol } of twin.ports) {
    if (protocol !== "tcp") continue;
    assert.match(
      (await get(`http://${hostAddress === "0.0.0.0" ? host.address : hostAddress}:${hostPort}/`)) ?? "",
      /hello/,
    );
  }
  assert.equal(await get("http://127.0.0.1:8080/"), "hello from web\n");
  await output(cli("rm", "-f", "twin"));

  // Stopped there is nothing of it; started again the ports are as before.
  await output(cli("stop", "-t", "0", "web"));
  assert.doesNotMatch((await host.run("ip", "netns", "list")) ?? "", new RegExp(id));
  assert.equal(await host.run("curl", "-sS", "-m", "2", "http://127.0.0.1:8080/"), undefined);
  await output(cli("start", "web"));
  assert.equal(await get("http://127.0.0.1:8080/"), "hello from web\n");
  await output(cli("rm", "-f", "web"));
  assert.doesNotMatch((await host.run("ip", "netns", "list")) ?? "", new RegExp(id));
});
