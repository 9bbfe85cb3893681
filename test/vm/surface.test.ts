/** Commands that look at sandboxes and name them, as a user types them. */
import assert from "node:assert/strict";
import { runCli, type TestScope, test } from "../support/harness.ts";

async function say(t: TestScope, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `belljar ${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

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
  for (const { name, status, cost } of found) {
    assert.ok(["yes", "no", "degraded"].includes(status), name);
    assert.ok(status === "yes" || cost !== undefined, `${name} does not say what its absence costs`);
  }
});

test("a completion script for each shell, and nothing for others", async (t) => {
  for (const shell of ["bash", "zsh", "fish"]) assert.match(await say(t, "completion", shell), /__complete/);
  assert.equal((await runCli(t, ["completion", "tcsh"])).status, 125);
});
