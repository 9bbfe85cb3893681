/**
 * Namespaces of somebody else's, in real ones: what a container engine would have made, what of ours is put into it, and that it is
 * exactly as before afterwards. A guest is a namespace at the end of a link that stands in for the VM's tap.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runTool } from "../../src/base/index.ts";
import { type CliResult, runCli, type TestScope, tempDir, test } from "../support/harness.ts";
import { type NetworkHost, networkHost } from "../support/network-host.ts";

const OWNER = join(import.meta.dirname, "../programs/networks.ts");
const ID = "00000000000a";
const [GUEST, GATEWAY] = ["10.77.0.2", "10.77.0.1"];

interface Engine {
  readonly name: string;
  readonly path: string;
  /** Everything that can be seen in it. */
  look(): Promise<string>;
  ip(...lines: readonly string[]): Promise<void>;
}

/** As an engine leaves it for a container: one veth with an address and a route, rules and queues of its own. */
async function engine(t: TestScope, host: NetworkHost): Promise<Engine> {
  const name = `${host.name}-e`;
  await runTool("ip", ["netns", "add", name]);
  t.after(() => runTool("ip", ["netns", "delete", name]).catch(() => {}));
  const path = `/run/netns/${name}`;
  const ip = async (...lines: readonly string[]): Promise<void> => {
    await runTool("ip", ["-n", name, "-batch", "-"], { input: Buffer.from(`${lines.join("\n")}\n`) });
  };
  await host.run("ip", "link", "add", "engine0", "type", "veth", "peer", "name", "eth0", "netns", name);
  await host.run("ip", "link", "set", "engine0", "up");
  await host.run("ip", "address", "add", `${GATEWAY}/24`, "dev", "engine0");
  await ip(
    "link set lo up",
    "link set eth0 mtu 1400 up",
    `address add ${GUEST}/24 dev eth0`,
    `route add default via ${GATEWAY}`,
    "route add 10.78.0.0/16 dev eth0",
  );
  const within = ["nsenter", `--net=${path}`, "--"];
  await runTool("nsenter", [...within.slice(1), "nft", "add", "table", "inet", "theirs"]);
  await runTool("tc", ["-n", name, "qdisc", "add", "dev", "eth0", "ingress"]);
  const look = async (): Promise<string> => {
    const [links, rules, queues] = await Promise.all([
      runTool("ip", ["-n", name, "-details", "address"]),
      runTool("nsenter", [...within.slice(1), "nft", "list", "ruleset"]),
      runTool("tc", ["-n", name, "qdisc"]),
    ]);
    // The kernel is still looking whether its own addresses are free.
    return [links, rules, queues].map(({ stdout }) => stdout.toString().replaceAll(/ tentative/g, "")).join("---\n");
  };
  return { name, path, look, ip };
}

async function owner(root: string, verb: string, ...args: readonly string[]): Promise<string> {
  return (await runTool(process.execPath, [OWNER, verb, root, ...args])).stdout.toString();
}

function settings(path: string, change: object = {}): string {
  const policy = { allow: [], deny: [], default: "open" };
  return JSON.stringify({ mode: "netns", ports: [], policy, given: { path, model: "tcfilter" }, ...change });
}

test("a given namespace: the guest is where its interface was, may be nobody else, and nothing is left of it", async (t) => {
  const host = await networkHost(t);
  const root = await tempDir(t);
  const { name, path, look, ip } = await engine(t, host);
  await host.serve(GATEWAY, 9001);
  const before = await look();

  // The link that stands for the tap is there before: it is taken as it is.
  const guest = `${name}-g`;
  await runTool("ip", ["netns", "add", guest]);
  t.after(() => runTool("ip", ["netns", "delete", guest]));
  const tap = `bj${ID}0`;
  await ip(`link add ${tap} type veth peer name eth0 netns ${guest}`);
  const made = JSON.parse(await owner(root, "make", ID, settings(path)));
  const [endpoint] = made.endpoints;
  assert.deepEqual(
    [endpoint.source, endpoint.kind, endpoint.mtu, endpoint.addresses],
    ["eth0", "veth", 1400, [`${GUEST}/24`]],
  );
  assert.deepEqual(made.routes, [
    { interfaceName: "eth0", destination: "10.78.0.0/16" },
    { interfaceName: "eth0", destination: "default", gateway: GATEWAY },
  ]);
  // Nobody else gets it meanwhile, nor takes what is not there.
  await assert.rejects(owner(root, "make", "00000000000b", settings(path)), /NETWORK_IN_USE|another sandbox/);

  const inGuest = ["nsenter", `--net=/run/netns/${guest}`, "--"];
  const batch = async (...lines: readonly string[]): Promise<void> => {
    await runTool("ip", ["-n", guest, "-batch", "-"], { input: Buffer.from(`${lines.join("\n")}\n`) });
  };
  await batch(
    "link set lo up",
    `link set eth0 address ${endpoint.macAddress} mtu 1400 up`,
    `address add ${GUEST}/24 dev eth0`,
    `route add default via ${GATEWAY}`,
  );
  const get = async (where: readonly string[], ...words: readonly string[]): Promise<string | undefined> => {
    const [program = "", ...rest] = [...where, "curl", "-sS", "-m", "3", ...words];
    return await runTool(program, rest).then(
      ({ stdout }) => stdout.toString(),
      () => undefined,
    );
  };
  assert.equal(await get(inGuest, `http://${GATEWAY}:9001/`), `served / to ${GUEST}`);
  await host.serve("0.0.0.0", 80, inGuest);
  assert.equal(await get(host.within, `http://${GUEST}/`), `served / to ${GATEWAY}`);
  const denied = async (): Promise<number> => Number(await owner(root, "denied", ID));
  const clean = await denied();

  // Another address, another hardware address, IPv6: dropped on the way, and counted.
  await batch("address add 10.77.0.99/24 dev eth0");
  assert.equal(await get(inGuest, "--interface", "10.77.0.99", `http://${GATEWAY}:9001/`), undefined);
  const forged = await denied();
  assert.ok(forged > clean);
  await batch("link set eth0 address 02:00:00:00:00:99");
  assert.equal(await get(inGuest, `http://${GATEWAY}:9001/`), undefined);
  assert.ok((await denied()) > forged);
  await batch(`link set eth0 address ${endpoint.macAddress}`);
  assert.equal(await get(inGuest, `http://${GATEWAY}:9001/`), `served / to ${GUEST}`);

  await owner(root, "remove", ID);
  // The stand-in for the tap has gone as a tap goes.
  assert.equal(await look(), before);
  await owner(root, "make", ID, settings(path));
  await owner(root, "remove", ID);
  assert.equal((await look()).replaceAll(/^\d+: /gm, ""), before.replaceAll(/^\d+: /gm, ""));
});

test("a given namespace: kinds of interfaces, limits of speed, and what is none", async (t) => {
  const host = await networkHost(t);
  const root = await tempDir(t);
  const { name, path, look, ip } = await engine(t, host);
  await host.run("ip", "link", "add", "mv0", "link", "out0", "type", "macvlan", "mode", "bridge");
  await host.run("ip", "link", "set", "mv0", "netns", name);
  await host.run("ip", "link", "add", "mt0", "link", "out0", "type", "macvtap", "mode", "bridge");
  await host.run("ip", "link", "set", "mt0", "netns", name);
  await ip(
    "address add 10.99.0.7/24 dev mv0",
    "address add 2001:db8::7/64 dev mv0 nodad",
    "link set mv0 up",
    "link set mt0 up",
    "tuntap add tap9 mode tap",
    "address add 10.80.0.2/24 dev tap9",
    "link set tap9 up",
    // Down and without an address, as kernels put into every namespace.
    "link add ifb7 type ifb",
  );
  const before = await look();
  const rates = { outBytesPerSecond: 1_000_000 };
  const made = JSON.parse(await owner(root, "make", ID, settings(path, { rates })));
  assert.deepEqual(
    made.endpoints
      .map((each: { source: string; kind: string; direct?: boolean }) => [each.source, each.kind, each.direct])
      .sort(),
    [
      ["eth0", "veth", undefined],
      ["mt0", "macvtap", undefined],
      ["mv0", "macvlan", undefined],
      ["tap9", "tap", true],
    ],
  );
  assert.ok(JSON.stringify(made.endpoints).includes("2001:db8::7/64"));
  const rules = (await runTool("nsenter", [`--net=${path}`, "nft", "list", "ruleset"])).stdout.toString();
  assert.match(rules, /limit rate over/);
  assert.match(rules, /ip6 saddr \{[^}]*2001:db8::7/);
  await owner(root, "remove", ID);
  assert.equal(await look(), before);

  // Towards the guest it is slowed down by a queue of the tap; of the namespace's own tap that is refused.
  const both = settings(path, { rates: { inBytesPerSecond: 1_000_000 } });
  await assert.rejects(owner(root, "make", ID, both), /slowed down/);
  await ip("link delete tap9");
  await owner(root, "make", ID, both);
  const queues = (await runTool("tc", ["-n", name, "qdisc", "show", "dev", `bj${ID}0`])).stdout.toString();
  assert.match(queues, /tbf .*rate 8Mbit/);
  await owner(root, "remove", ID);

  await ip("link add odd0 type bridge", "link set odd0 up");
  await assert.rejects(owner(root, "make", ID, settings(path)), /odd0.*kind bridge/);
  await ip("link delete odd0");
  for (const [wrong, why] of [
    ["/run/netns/there-is-none", /is not there/],
    ["/etc/hostname", /is no namespace/],
    ["/proc/self/ns/mnt", /no network namespace/],
    ["/proc/self/ns/net", /the host's own/],
  ] as const) {
    await assert.rejects(owner(root, "make", ID, settings(wrong)), why);
  }
});

test("a given namespace that vanishes takes nothing with it, and is not mistaken for another one", async (t) => {
  const host = await networkHost(t);
  const root = await tempDir(t);
  const { name, path } = await engine(t, host);
  await owner(root, "make", ID, settings(path));
  await runTool("ip", ["netns", "delete", name]);
  // Another one at the same place: whatever is in it is not ours.
  await runTool("ip", ["netns", "add", name]);
  await runTool("ip", ["-n", name, "tuntap", "add", `bj${ID}0`, "mode", "tap"]);
  await owner(root, "remove", ID);
  const links = (await runTool("ip", ["-n", name, "-brief", "link"])).stdout.toString();
  assert.match(links, new RegExp(`bj${ID}0`));
});

test("a sandbox in a given namespace follows it, and a copy is in another one", async (t) => {
  const host = await networkHost(t);
  const { name, path, look, ip } = await engine(t, host);
  await host.serve(GATEWAY, 9001);
  const before = await look();
  const cli = (...args: readonly string[]): Promise<CliResult> => runCli(t, args, { within: host.within });
  const output = async (...args: readonly string[]): Promise<string> => {
    const { status, stdout, stderr } = await cli(...args);
    assert.equal(status, 0, stderr);
    return stdout.toString().trim();
  };
  const web = `require("http").createServer((q, r) => r.end("hello from " + require("os").hostname())).listen(80)`;
  await output(
    "run",
    "-d",
    "--name",
    "web",
    "--hostname",
    "web",
    "--network",
    `netns:${name}`,
    "node",
    "node",
    "-e",
    web,
  );
  const until = async (what: () => Promise<string | undefined>, wanted: RegExp): Promise<void> => {
    let seen: string | undefined;
    for (const endMs = performance.now() + 60_000; performance.now() < endMs; await sleep(200)) {
      seen = await what();
      if (wanted.test(seen ?? "")) return;
    }
    assert.match(seen ?? "", wanted);
  };
  const get = (address: string): Promise<string | undefined> =>
    host.run("curl", "-sS", "-m", "5", `http://${address}/`);
  await until(() => get(GUEST), /hello from web/);
  const fetcher = `fetch(process.argv[1]).then((r) => r.text()).then(console.log)`;
  assert.equal(await output("exec", "web", "node", "-e", fetcher, `http://${GATEWAY}:9001/`), `served / to ${GUEST}`);

  // An interface that comes is in the guest, and one that goes is not.
  await host.run("ip", "link", "add", "engine1", "type", "veth", "peer", "name", "net1", "netns", name);
  await host.run("ip", "link", "set", "engine1", "up");
  await host.run("ip", "address", "add", "10.79.0.1/24", "dev", "engine1");
  await ip("link set net1 up", "address add 10.79.0.2/24 dev net1");
  await until(() => get("10.79.0.2"), /hello from web/);
  assert.match(await output("network", "interface", "ls", "web"), /net1 +net1 +up .*10\.79\.0\.2\/24/);
  await output("network", "interface", "rm", "web", "net1");
  assert.doesNotMatch(await output("network", "interface", "ls", "web"), /net1/);
  await output("network", "interface", "add", "web", "net1");
  await until(() => get("10.79.0.2"), /hello from web/);
  await host.run("ip", "link", "delete", "engine1");
  await until(() => output("network", "interface", "ls", "web"), /^(?![\s\S]*net1)/);
  await output("network", "route", "set", "web", `default@${GATEWAY}%eth0`, `10.90.0.0/16@${GATEWAY}%eth0`);
  assert.match(await output("network", "route", "ls", "web"), /10\.90\.0\.0\/16 +10\.77\.0\.1 +eth0/);
  assert.doesNotMatch(await output("network", "route", "ls", "web"), /10\.78/);
  assert.equal(await get(GUEST), "hello from web");

  // Nobody else has its namespace: not a copy either.
  assert.match((await cli("fork", "web")).stderr, /cannot have the network namespace/);
  await output("checkpoint", "create", "web", "one");
  assert.match((await cli("restore", "one")).stderr, /cannot have the network namespace/);
  assert.match((await cli("restore", "one", "--network", `netns:${name}`)).stderr, /is another sandbox's already/);
  await output("restore", "one", "--name", "twin", "--network", "bridge", "-p", "127.0.0.1:8080:80");
  await until(() => get("127.0.0.1:8080"), /hello from/);
  assert.equal(await get(GUEST), "hello from web");
  await output("rm", "-f", "web", "twin");
  assert.equal(await look(), before);
  await output("restore", "one", "--name", "again", "--network", `netns:${path}`);
  await until(() => get(GUEST), /hello from/);
  await output("rm", "-f", "again");
  assert.equal(await look(), before);
});
