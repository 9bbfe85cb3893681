import assert from "node:assert/strict";
import { test } from "node:test";
import { overlaps, parseRange, rangeText } from "./addresses.ts";
import { settleNetwork } from "./config.ts";
import { questionMatch } from "./dns-rules.ts";
import { PRIVATE_RANGES, resolvePolicy, settlePolicy } from "./policy.ts";
import { readSets, renewedSets } from "./renewed-names.ts";
import { namespaceRules } from "./rules.ts";

test("addresses: nothing but four decimal numbers, and ranges of them", () => {
  assert.deepEqual(parseRange("10.1.2.3/8"), { address: 10 * 2 ** 24, prefix: 8 });
  assert.equal(rangeText({ address: 0xc0000201, prefix: 32 }), "192.0.2.1/32");
  for (const text of ["10.1", "0x7f.0.0.1", "010.0.0.1", "10.0.0.1/33", "10.0.0.256", "::1", "example.org", ""]) {
    assert.equal(parseRange(text), undefined, text);
  }
  const range = (text: string): { address: number; prefix: number } =>
    parseRange(text) ?? assert.fail(`${text} is a range`);
  assert.ok(overlaps(range("10.0.0.0/8"), range("10.9.8.7")));
  assert.ok(!overlaps(range("10.0.0.0/8"), range("11.0.0.0/8")));
  assert.ok(overlaps(range("0.0.0.0/0"), range("255.255.255.255")));
});

test("policy: names become addresses, and a name without one is an error", async () => {
  const policy = settlePolicy({ allow: ["db.example:5432", "10.1.0.0/16"], deny: ["203.0.113.9"] });
  const lookUp = async (name: string): Promise<readonly string[]> => (name === "db.example" ? ["10.9.9.9"] : []);
  const found = await resolvePolicy(policy, lookUp, ["198.51.100.7"]);
  assert.deepEqual(found, {
    allow: [
      { ranges: ["10.9.9.9/32"], port: 5432, name: "db.example" },
      { ranges: ["10.1.0.0/16"], port: undefined },
    ],
    deny: [{ ranges: ["203.0.113.9/32"], port: undefined }],
    closed: [...PRIVATE_RANGES, "198.51.100.7/32"],
    default: "open",
  });
  await assert.rejects(resolvePolicy(settlePolicy({ allow: ["gone.example"] }), lookUp, []), {
    reason: "NETWORK_FAILED",
    message: /gone\.example/,
  });
});

test("policy: what names no destination is refused, and cannot become a rule of its own", () => {
  for (const text of ["", "a b", "x;accept", "10.0.0.0/40", "1.2.3", "host:0", "host:70000", 'a"', "a\nb", "-x"]) {
    assert.throws(() => settlePolicy({ allow: [text] }), { reason: "INVALID_ARGUMENT" }, JSON.stringify(text));
  }
  assert.throws(() => settlePolicy({ deny: Array.from({ length: 129 }, () => "10.0.0.1") }), { message: /too many/ });
});

test("rules: denied before allowed before closed before the rest", async () => {
  const policy = settlePolicy({ allow: ["192.0.2.1:443"], deny: ["192.0.2.1"], default: "closed" });
  const to = await resolvePolicy(policy, async () => [], ["10.0.0.1", "8.8.8.8"]);
  const guest = {
    mode: "user",
    address: "10.0.2.15",
    macAddress: "02:00:00:00:00:05",
    nameServer: "192.0.2.53",
  } as const;
  const published = { hostAddress: "0.0.0.0", hostPort: 8080, containerPort: 80, protocol: "tcp" } as const;
  const rules = namespaceRules({ ...guest, ports: [published] }, to);
  const lines = rules.split("\n");
  const outbound = lines.slice(lines.indexOf("chain outbound {") + 1);
  assert.equal(outbound[0], "ip daddr { 192.0.2.1/32 } goto refuse");
  assert.equal(outbound[1], "ip daddr { 192.0.2.1/32 } meta l4proto { tcp, udp } th dport 443 accept");
  assert.match(outbound[2] ?? "", /^ip daddr \{ 0\.0\.0\.0\/8, 10\.0\.0\.0\/8.*, 8\.8\.8\.8\/32 \} goto refuse$/);
  assert.doesNotMatch(outbound[2] ?? "", /10\.0\.0\.1\/32/);
  assert.equal(outbound[3], "goto refuse");
  assert.match(rules, /^iifname "up0" tcp dport 8080 dnat ip to 10\.0\.2\.15:80$/m);
  assert.match(rules, /^iifname "tap0" ether saddr != 02:00:00:00:00:05 counter name denied drop$/m);
});

test("network: without one there is nothing to publish, allow or deny", () => {
  assert.equal(settleNetwork({}), undefined);
  assert.equal(settleNetwork({ mode: "none" }), undefined);
  assert.throws(() => settleNetwork({ ports: [{ containerPort: 80 }] }), { message: /published without a network/ });
  assert.throws(() => settleNetwork({ mode: "none", policy: { allow: ["10.0.0.1"] } }), { message: /allow or deny/ });
  assert.deepEqual(settleNetwork({ mode: "user" }), {
    mode: "user",
    ports: [],
    policy: { allow: [], deny: [], default: "open" },
  });
});

test("names: only what is allowed may be asked for, and every question is looked at", async () => {
  const guest = {
    mode: "bridge",
    address: "10.88.0.2",
    macAddress: "02:00:00:00:00:05",
    nameServer: "192.0.2.53",
    ports: [],
  } as const;
  const lookUp = async (): Promise<readonly string[]> => ["198.51.100.1"];
  const rulesOf = async (policy: Parameters<typeof settlePolicy>[0]): Promise<readonly string[]> =>
    namespaceRules(guest, await resolvePolicy(settlePolicy(policy), lookUp, [])).split("\n");
  const closed = await rulesOf({ allow: ["a.example:443"], default: "closed" });
  const at = (line: string): number => closed.indexOf(line);
  const look = at('iifname "tap0" oifname "up0" ip daddr 192.0.2.53 ct status dnat goto names');
  assert.ok(look > 0 && look < closed.indexOf("ct state established,related accept", look));
  assert.ok(closed.includes("set allow0 { type ipv4_addr; elements = { 198.51.100.1 }; }"));
  assert.ok(closed.includes("ip daddr @allow0 meta l4proto { tcp, udp } th dport 443 accept"));
  const names = closed.slice(at("chain names {") + 1);
  assert.deepEqual(names.slice(0, 2), [`${questionMatch("a.example")} accept`, "goto refuse"]);
  // Where everything is open but a name, only that is not to be asked for.
  const open = await rulesOf({ deny: ["bad.example"] });
  const denied = open.slice(open.indexOf("chain names {") + 1);
  assert.deepEqual(denied.slice(0, 2), [`${questionMatch("bad.example")} goto refuse`, "accept"]);
  assert.ok(!(await rulesOf({})).some((line) => line.endsWith("goto names")));
});

test("names: a question is compared as it is on the wire, in pieces, whatever the case of its letters", () => {
  const match = questionMatch("Ab1.example.");
  assert.match(
    match,
    /@th,160,104 & 0xffdfdfffffdfdfdfdfdfdfdfff == 0x034142310745584[0-9a-f]+00 @th,264,16 \{ 1, 28, 65 \}$/,
  );
  assert.match(match, /udp length <= 77 /);
  assert.equal(questionMatch(`${"x".repeat(60)}.example`).match(/@th,\d+,128 /g)?.length, 4);
});

test("names: addresses that come are added, and forgotten only when there are too many", () => {
  const present = readSets(
    '{"nftables":[{"metainfo":{}},{"set":{"name":"allow0","elem":["192.0.2.1"]}},{"set":{"name":"deny1"}}]}',
  );
  assert.deepEqual(
    present,
    new Map([
      ["allow0", ["192.0.2.1"]],
      ["deny1", []],
    ]),
  );
  assert.equal(renewedSets([{ set: "allow0", addresses: ["192.0.2.1"] }], present), "");
  assert.equal(
    renewedSets([{ set: "allow0", addresses: ["192.0.2.1", "192.0.2.2", "x"] }], present),
    "add element inet belljar allow0 { 192.0.2.2 }\n",
  );
  const many = Array.from({ length: 64 }, (_, index) => `192.0.2.${index + 1}`);
  assert.match(
    renewedSets([{ set: "allow0", addresses: ["198.51.100.1"] }], new Map([["allow0", many]])),
    /^flush set inet belljar allow0\nadd element inet belljar allow0 \{ 198\.51\.100\.1 \}\n$/,
  );
});
