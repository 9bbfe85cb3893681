/** Commands that look at sandboxes and name them, as a user types them. */
import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { runCli, type TestScope, test } from "../support/harness.ts";

async function say(t: TestScope, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `belljar ${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

/** What is no archive. */
const BINARY_FILE = "/usr/bin/env";

const lines = (text: string): string[] => text.trimEnd().split("\n");

test("a sandbox is renamed, inspected by template, completed, measured, and its events are told", async (t) => {
  const digest = lines(await say(t, "template", "build"))[0] ?? "";
  assert.match(digest, /^[0-9a-f]{64}$/);
  const id = (await say(t, "run", "-d", "--name", "web", "busybox", "sleep", "1000")).trim();
  assert.equal(await say(t, "rename", id.slice(0, 6), "shop"), "shop\n");
  assert.equal((await runCli(t, ["inspect", "web"])).status, 125);

  const template = '{{.State}} {{.vmm.template}} {{len .containers}} {{range .containers}}{{join .command " "}}{{end}}';
  assert.equal(await say(t, "inspect", "-f", template, "shop"), `running ${digest} 1 sleep 1000\n`);
  const wrong = await runCli(t, ["inspect", "--format", "{{.nonesuch}}", "shop"]);
  assert.deepEqual([wrong.status, /there is no fact \.nonesuch/.test(wrong.stderr)], [125, true]);

  assert.equal(await say(t, "__complete", "--", "stop", "sh"), "shop\n");
  assert.equal(await say(t, "__complete", "--", "image", "rm", "bus"), "busybox:latest\n");

  // Not a terminal: once.
  const [head = "", row = ""] = lines(await say(t, "top"));
  assert.match(head, /^ID +NAME +STATE +CPU +RESIDENT/);
  assert.match(row, new RegExp(`^${id} +shop +running +\\d+\\.\\d %`));
  const top = JSON.parse(await say(t, "top", "--json", "shop"));
  assert.deepEqual([top.id, top.state, top.memoryBytes, top.containers], [id, "running", 268_435_456, 1]);
  assert.ok(top.host.residentBytes > 0 && top.guest.memoryTotalBytes > 0);

  const metrics = await say(t, "metrics");
  assert.match(metrics, /^belljar_sandboxes\{state="running"\} 1$/m);
  assert.match(metrics, /^belljar_call_duration_seconds_count\{method="CreateSandbox"\} 2$/m);
  assert.match(metrics, /^belljar_vmm_memory_bytes\{kind="private"\} \d{7,}$/m);
  const samples = lines(await say(t, "metrics", "--json")).map((line) => JSON.parse(line));
  const running = samples.find(({ name, labels }) => name === "belljar_sandboxes" && labels.state === "running");
  assert.equal(running?.value, 1);

  await say(t, "rm", "-f", "shop");
  // The next daemon goes on with the numbers.
  await say(t, "daemon", "stop");
  assert.equal((await runCli(t, ["metrics"])).status, 125);
  await say(t, "create", "--name", "last", "busybox");
  const events = lines(await say(t, "events", "--after", "0", "--no-follow", "--json")).map((line) => JSON.parse(line));
  assert.deepEqual(
    events.map(({ number }) => number),
    events.map((_, index) => index + 1),
  );
  const told = events.filter(({ sandboxId }) => sandboxId === id).map(({ kind, state }) => state ?? kind);
  assert.deepEqual(told, ["created", "ready", "running", "running", "renamed", "deleted"]);
  const later = lines(await say(t, "events", "--after", String(events.length - 2), "--no-follow"));
  assert.deepEqual([later.length, /last created from busybox/.test(later[0] ?? "")], [2, true]);
});

test("what scripts rely on: ids one a line, facts as JSON, bytes as they were written, a checkpoint as a file", async (t) => {
  // Almost as much as Linux passes on.
  const long = "x".repeat(131_000);
  const program = "printf '\\377\\n'; while :; do sleep 1; done";
  const ports = ["--network", "user", "-p", "127.0.0.1::8080/tcp", "-p", "9090/udp"];
  const created = ["run", "-d", "--name", "src", "-e", `LONG=${long}`, ...ports, "busybox", "sh", "-c", program];
  const [id = "", ...none] = lines(await say(t, ...created));
  assert.deepEqual([/^[0-9a-f]{12}$/.test(id), none], [true, []]);
  assert.equal(await say(t, "exec", "src", "sh", "-c", "echo ${#LONG}"), "131000\n");
  const [log = ""] = lines(await say(t, "logs", "--json", "src"));
  assert.deepEqual([JSON.parse(log).base64, JSON.parse(log).stream], ["/wo=", "stdout"]);

  const facts = JSON.parse(await say(t, "inspect", "--json", id.slice(0, 8)));
  const { name, state, generation, containers, mounts, network } = facts;
  assert.deepEqual([facts.id, name, state, generation, containers.length, mounts], [id, "src", "running", 0, 1, []]);
  process.kill(facts.vmm.pid, 0);
  assert.match(network.addresses[0], /^\d+\.\d+\.\d+\.\d+$/);
  for (const [index, rest] of [
    { hostAddress: "127.0.0.1", containerPort: 8080, protocol: "tcp" },
    { hostAddress: "0.0.0.0", containerPort: 9090, protocol: "udp" },
  ].entries()) {
    const { hostPort, ...others } = facts.ports[index];
    assert.deepEqual([others, hostPort > 0], [rest, true]);
  }
  assert.match(JSON.parse(await say(t, "daemon", "status", "--json")).startedAt, /^\d{4}-.*Z$/);

  const file = join(t.dir, "before.tar");
  const [checkpoint = ""] = lines(await say(t, "checkpoint", "create", "src", "before"));
  assert.equal(await say(t, "checkpoint", "export", "before", file), `${file}\n`);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  await say(t, "checkpoint", "rm", "before");
  const nowhere = await runCli(t, ["checkpoint", "import", BINARY_FILE]);
  assert.match(nowhere.stderr, /^belljar: .*env is no checkpoint that can be read: tar .*\nHave it written again/m);
  assert.equal(await say(t, "checkpoint", "import", file), `${checkpoint}\n`);
  const restored = lines(await say(t, "restore", "--name", "again", "before"));
  const forks = lines(await say(t, "fork", "-n", "2", "--name", "f{n}", "src"));
  assert.deepEqual([restored.length, forks.length], [1, 2]);
  const all = lines(await say(t, "ps", "-q")).sort();
  assert.deepEqual(all, [id, ...restored, ...forks].sort());
  assert.equal(await say(t, "inspect", "-f", "{{.Name}} {{.generation}}", ...forks), "f1 1\nf2 1\n");

  assert.equal(await say(t, "kill", "-s", "TERM", "src"), "src\n");
  assert.equal(await say(t, "wait", "src"), "143\n");
  assert.equal(await say(t, "rm", "-f", "nonesuch", ...all), all.map((each) => `${each}\n`).join(""));
});

test("what cannot be is refused by its name, before anything starts", async (t) => {
  for (const [args, message] of [
    [["--name", "", "busybox"], /"" is not a valid name/],
    [["--name", "../x", "busybox"], /"\.\.\/x" is not a valid name/],
    [["--name", "ü☃", "busybox"], /is not a valid name/],
    [[""], /the name of the image is empty/],
    [["-"], /"-" is not an image name/],
    [["../busybox"], /is not an image name/],
    [["x".repeat(100_000)], /is not an image name: its path is longer/],
    [["busybox", ""], /the command is an empty string/],
    [["-e", "", "busybox", "true"], /the environment variable "" has no name/],
    [["-w", `/${"x".repeat(100_000)}`, "busybox", "true"], /container\.workingDir: expected a string of at most/],
    [["--annotation", `a=${"x".repeat(100_000)}`, "busybox"], /the annotation "a" cannot be kept\nA name has/],
    [["-p", "70000:1", "busybox"], /does not say what to publish/],
    [["--hostname", "a b", "busybox"], /is not a host name/],
  ] as const) {
    const { status, stdout, stderr } = await runCli(t, ["run", "--rm", ...args]);
    assert.deepEqual([status, stdout.length], [125, 0], stderr.slice(0, 500));
    assert.match(stderr, message);
    assert.ok(stderr.length < 1_000 && !stderr.includes("report it"), stderr.slice(0, 500));
  }
  assert.equal(await say(t, "ps", "-aq"), "");
  const volume = JSON.parse(await say(t, "volume", "create", "--json"));
  assert.deepEqual(JSON.parse(await say(t, "volume", "inspect", volume.name)), volume);
  const pruned = JSON.parse(await say(t, "volume", "prune", "-f", "--json"));
  assert.deepEqual(pruned.removed, [volume.name]);
  const image = JSON.parse(await say(t, "image", "inspect", "busybox"));
  assert.deepEqual([image.name, image.layers.length, image.builtin], ["busybox:latest", 1, true]);
  assert.equal(JSON.parse(await say(t, "image", "prune", "--json")).layersRemoved, 0);
  const [guest = ""] = lines(await say(t, "guest", "ls", "--json"));
  const { digest } = JSON.parse(guest);
  assert.equal(await say(t, "guest", "verify", digest.slice(0, 12)), `${digest}: intact\n`);
  assert.equal((await runCli(t, ["guest", "verify", "../.."])).status, 125);
});

test("doctor names every capability, with what its absence costs and the remedy", async (t) => {
  const found = lines(await say(t, "doctor", "--json")).map((line) => JSON.parse(line));
  const names = new Set(found.map(({ name }) => name));
  for (const name of [
    "kvm",
    "pagemap scan",
    "nested virtualisation",
    "userfaultfd",
    "nft",
    "tun",
    "iommu",
    "vfio-pci",
  ]) {
    assert.ok(names.has(name), name);
  }
  for (const name of ["cgroups", "virtiofsd", "qemu-storage-daemon", "disk space", "memory", "acceleration"]) {
    assert.ok(names.has(name), name);
  }
  for (const { name, status, cost, remedy } of found) {
    assert.ok(["yes", "no", "degraded"].includes(status), name);
    assert.ok(status === "yes" || (cost !== undefined && remedy !== undefined), `${name}: ${cost}, ${remedy}`);
  }
});
