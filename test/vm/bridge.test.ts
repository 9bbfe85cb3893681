/**
 * Bridge networks in real namespaces: the test's own host, its rules, and guests that are namespaces, too, at the end of a link that
 * stands in for the VM's tap.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { type NetworkHost, networkHost } from "../support/network-host.ts";

const OWNER = join(import.meta.dirname, "../programs/networks.ts");

interface Made {
  readonly namespace: string;
  readonly address: string;
  readonly macAddress: string;
}

const policy = { allow: [], deny: [], default: "open" };

class Owner {
  readonly #host: NetworkHost;
  readonly #root: string;

  constructor(host: NetworkHost, root: string) {
    this.#host = host;
    this.#root = root;
  }

  async make(id: string, change: object = {}): Promise<Made> {
    const settings = { mode: "bridge", ports: [], policy, ...change };
    return JSON.parse((await this.#run("make", id, JSON.stringify(settings))) ?? "");
  }

  async remove(id: string): Promise<void> {
    assert.notEqual(await this.#run("remove", id), undefined);
  }

  async denied(id: string): Promise<number> {
    return Number(await this.#run("denied", id));
  }

  async sweep(): Promise<readonly string[]> {
    return JSON.parse((await this.#run("sweep")) ?? "");
  }

  #run(verb: string, ...args: readonly string[]): Promise<string | undefined> {
    return this.#host.run(process.execPath, OWNER, verb, this.#root, ...args);
  }
}

/** A guest: a namespace with the other end of the tap's place. Answers how to run a program in it. */
async function guestOf(t: TestScope, made: Made, name: string): Promise<readonly string[]> {
  const guest = `${made.namespace}-${name}`;
  await runTool("ip", ["netns", "add", guest]);
  t.after(() => runTool("ip", ["netns", "delete", guest]));
  const batch = (namespace: string, lines: readonly string[]): Promise<unknown> =>
    runTool("ip", ["-n", namespace, "-batch", "-"], { input: Buffer.from(`${lines.join("\n")}\n`) });
  await batch(made.namespace, [
    "link delete tap0",
    `link add tap0 address 02:62:6a:00:00:01 type veth peer name eth0 netns ${guest}`,
    "link set tap0 up",
    "address add 169.254.1.1/32 dev tap0",
    `route add ${made.address}/32 dev tap0`,
    `neighbour replace ${made.address} lladdr ${made.macAddress} dev tap0 nud permanent`,
  ]);
  await batch(guest, [
    "link set lo up",
    `link set eth0 address ${made.macAddress} up`,
    `address add ${made.address}/32 dev eth0`,
    "route add 169.254.1.1/32 dev eth0",
    "route add default via 169.254.1.1",
  ]);
  return ["nsenter", `--net=/run/netns/${guest}`, "--"];
}

test("a bridge network: ports lead in, the rules hold, and all of it is undone, and nothing else", async (t) => {
  const host = await networkHost(t);
  const owner = new Owner(host, await tempDir(t));
  await host.run("nft", "add", "table", "ip", "others");
  const published = [
    { hostAddress: "0.0.0.0", hostPort: 8080, containerPort: 80, protocol: "tcp" },
    { hostAddress: "127.0.0.1", hostPort: 8081, containerPort: 80, protocol: "tcp" },
  ];
  const allow = [`${host.address}:9001`];
  const [one, two] = ["00000000000a", "00000000000b"];
  const first = await owner.make(one, { ports: published, policy: { ...policy, allow } });
  const second = await owner.make(two);
  t.after(async () => {
    for (const { namespace } of [first, second]) await runTool("ip", ["netns", "delete", namespace]).catch(() => {});
  });
  assert.notEqual(first.address, second.address);
  const inFirst = await guestOf(t, first, "g");
  const inSecond = await guestOf(t, second, "g");
  await host.serve("0.0.0.0", 80, inFirst);
  for (const port of [9001, 9002]) await host.serve("0.0.0.0", port);

  const get = async (where: readonly string[], url: string): Promise<string | undefined> => {
    const [program = "", ...words] = [...where, "curl", "-sS", "-m", "4", `http://${url}/`];
    return await runTool(program, words).then(
      ({ stdout }) => stdout.toString(),
      () => undefined,
    );
  };
  const gateway = "10.88.0.1";
  assert.equal(await get(host.within, "127.0.0.1:8080"), `served / to ${gateway}`);
  assert.equal(await get(host.within, "127.0.0.1:8081"), `served / to ${gateway}`);
  assert.equal(await get(host.within, `${host.address}:8080`), `served / to ${host.address}`);
  assert.equal(await get(host.within, `${host.address}:8081`), undefined);
  assert.equal(await get(inFirst, `${host.address}:9001`), `served / to ${first.address}`);
  for (const closed of [`${host.address}:9002`, `${gateway}:9002`, `${second.address}:80`]) {
    assert.equal(await get(inFirst, closed), undefined, closed);
  }
  for (const closed of [`${first.address}:80`, `${host.address}:8080`, `${host.address}:9001`, "127.0.0.1:9002"]) {
    assert.equal(await get(inSecond, closed), undefined, closed);
  }
  // An address that is not its own leads nowhere, not even the neighbour's.
  const [program = "", ...words] = inFirst;
  await runTool(program, [...words, "ip", "address", "add", `${second.address}/32`, "dev", "eth0"]);
  const forged = runTool(program, [
    ...words,
    "curl",
    "-m",
    "2",
    "--interface",
    second.address,
    `http://${host.address}:9001/`,
  ]);
  await assert.rejects(forged);

  // One try for each closed destination; those to its own loopback never leave a guest.
  assert.ok((await owner.denied(one)) > 3);
  assert.equal(await owner.denied(two), 3);

  // One that is linked to the first reaches it, whatever came first; nobody else does, and not the other way round.
  const three = "00000000000c";
  const third = await owner.make(three, { links: [{ sandbox: one, alias: "first" }] });
  t.after(() => runTool("ip", ["netns", "delete", third.namespace]).catch(() => {}));
  const inThird = await guestOf(t, third, "g");
  await host.serve("0.0.0.0", 80, inThird);
  assert.equal(await get(inThird, `${first.address}:80`), `served / to ${third.address}`);
  assert.equal(await get(inFirst, `${third.address}:80`), undefined);
  assert.equal(await get(inThird, `${second.address}:80`), undefined);
  assert.equal(await get(inThird, `${gateway}:9002`), undefined);
  await owner.remove(three);

  // Half of a network that nobody knows, as a kill leaves it.
  const lost = "00000000000d";
  await host.run("ip", "netns", "add", first.namespace.replace(one, lost));
  await host.run("ip", "link", "add", `bj${lost}`, "type", "veth", "peer", "name", "lost");
  await host.run("ip", "link", "set", `bj${lost}`, "master", first.namespace.replace(/^belljar-(.*)-.*/, "bj-$1"));
  assert.deepEqual(await owner.sweep(), [lost]);
  assert.equal(await get(host.within, "127.0.0.1:8080"), `served / to ${gateway}`);

  await owner.remove(one);
  assert.equal(await get(host.within, "127.0.0.1:8080"), undefined);
  await owner.remove(two);
  assert.doesNotMatch((await host.run("ip", "-brief", "link")) ?? "", /bj/);
  assert.equal((await host.run("nft", "list", "ruleset"))?.replaceAll(/\s/g, ""), "tableipothers{}");
});
