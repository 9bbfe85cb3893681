/** The commands of checkpoints as a user types them, over a daemon whose sandboxes are fakes. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { type CliResult, runCli, startCli, type TestScope, test } from "../../test/support/harness.ts";
import { serveFake } from "../../test/support/served-fake.ts";
import { until } from "../../test/support/until.ts";

interface Setup {
  readonly fake: FakeRuntime;
  readonly id: string;
}

/** With a sandbox `demo` that runs. */
async function setUp(t: TestScope): Promise<Setup> {
  const fake = await serveFake(t);
  const { id } = await fake.sandboxes.create({ image: "fake", name: "demo", container: { command: ["wait"] } });
  return { fake, id };
}

const lines = ({ stdout }: CliResult): string[] => stdout.toString().split("\n").filter(Boolean);

async function ok(t: TestScope, ...args: string[]): Promise<CliResult> {
  const result = await runCli(t, args);
  assert.equal(result.status, 0, `${args.join(" ")}: ${result.stderr}`);
  return result;
}

test("a checkpoint is made, listed, inspected, verified and removed", async (t) => {
  const { fake, id } = await setUp(t);
  const made = await ok(t, "checkpoint", "create", "demo", "before");
  const [checkpointId = ""] = lines(made);
  assert.deepEqual(lines(made), [fake.checkpoints.find("before").info.id]);
  assert.match(
    made.stderr,
    /checkpoint before of demo: VM stopped for 12\.3 ms, workload for 23\.4 ms; 8\.0 MB of memory/,
  );
  const stopped = JSON.parse(lines(await ok(t, "checkpoint", "create", "--json", "--stop", id))[0] ?? "");
  assert.deepEqual(
    [stopped.source, stopped.memoryBytes, stopped.createdAt, stopped.pauseMs],
    [{ id, name: "demo", generation: 0 }, 256 * 2 ** 20, "2023-11-14T22:13:21.000Z", 12.34],
  );
  assert.equal(fake.find("demo").state, "stopped");

  const [head = "", first = ""] = lines(await ok(t, "checkpoint", "ls"));
  assert.match(head, /^ID +NAME +SANDBOX +IMAGE +CREATED +STATE +CONTAINERS +SIZE$/);
  assert.match(first, new RegExp(`^${checkpointId} +before +demo +fake .* ago +running +1 +11\\.2 MB$`));
  assert.deepEqual(lines(await ok(t, "checkpoint", "ls", "-q")), [checkpointId, stopped.id]);
  const inspected = JSON.parse((await ok(t, "checkpoint", "inspect", "before")).stdout.toString());
  assert.deepEqual([inspected.id, inspected.containers[0].name], [checkpointId, "main"]);
  assert.deepEqual(
    lines(await ok(t, "checkpoint", "ls", "--json")).map((line) => JSON.parse(line)),
    [inspected, stopped],
  );
  assert.deepEqual(lines(await ok(t, "checkpoint", "verify", "before")), ["before"]);

  // The others are removed all the same.
  const partly = await runCli(t, ["checkpoint", "rm", "nonesuch", "before", stopped.id]);
  assert.deepEqual([partly.status, lines(partly)], [125, ["before", stopped.id]]);
  assert.match(partly.stderr, /no checkpoint "nonesuch"\nList them with `belljar checkpoint ls`/);
  assert.equal((await ok(t, "checkpoint", "rm", "-f", "before")).stdout.length, 0);
  assert.equal(fake.checkpoints.all.size, 0);
});

test("a checkpoint is restored under another name, or only checked", async (t) => {
  const { fake } = await setUp(t);
  await ok(t, "checkpoint", "create", "demo", "before");
  const dry = await ok(t, "restore", "--dry-run", "--name", "again", "before");
  assert.deepEqual(lines(dry).slice(0, 2), ["WHAT         FITS   DETAIL", "hypervisor   yes    QEMU 0.0.0"]);
  assert.equal(fake.all.size, 1);
  const restored = await ok(t, "restore", "--name", "again", "--hostname", "box", "--keep-exec", "before");
  assert.deepEqual(lines(restored), [fake.find("again").id]);
  assert.match(restored.stderr, /checkpoint before restored as again in \d/);
  const { name, hostname, generation } = JSON.parse((await ok(t, "inspect", "again")).stdout.toString());
  assert.deepEqual([name, hostname, generation], ["again", "box", 1]);
  const { id } = JSON.parse(lines(await ok(t, "restore", "--json", "before"))[0] ?? "");
  assert.equal(fake.find(id).generation, 1);
  const [head = "", , again = ""] = lines(await ok(t, "ps"));
  assert.match(head, /GENERATION$/);
  assert.match(again, / again .* 1$/);

  fake.checkpoints.misfits = [{ what: "cpu", fits: false, detail: "avx2 is missing" }];
  const misfit = await runCli(t, ["restore", "--dry-run", "before"]);
  assert.deepEqual([misfit.status, lines(misfit).at(-1)], [1, "cpu          no     avx2 is missing"]);
  const objects = lines(await runCli(t, ["restore", "--dry-run", "--json", "before"])).map((line) => JSON.parse(line));
  assert.deepEqual(objects.at(-1), fake.checkpoints.misfits[0]);
  const refused = await runCli(t, ["restore", "before"]);
  assert.deepEqual([refused.status, lines(refused)], [125, []]);
  assert.match(refused.stderr, /cpu: avx2 is missing\n.*--dry-run/);
});

test("forks are named by number, and their ids printed one a line", async (t) => {
  const { fake } = await setUp(t);
  const named = await ok(t, "fork", "-n", "3", "--name", "f{n}", "demo");
  assert.deepEqual(
    lines(named),
    [1, 2, 3].map((number) => fake.find(`f${number}`).id),
  );
  assert.match(named.stderr, /demo forked 3 times in \d/);
  const one = JSON.parse(lines(await ok(t, "fork", "--json", "--keep-exec", "demo"))[0] ?? "");
  assert.equal(fake.find(one.id).generation, 1);
  assert.equal(fake.all.size, 5);
  for (const args of [
    ["-n", "0"],
    ["-n", "2", "--name", "same"],
    ["--name", "../x"],
  ]) {
    const refused = await runCli(t, ["fork", ...args, "demo"]);
    assert.deepEqual([refused.status, lines(refused)], [125, []], refused.stderr);
  }
  assert.equal(fake.all.size, 5);
});

test("what is no safe name is refused before anything is asked", async (t) => {
  const { fake } = await setUp(t);
  for (const args of [
    ["checkpoint", "create", "demo/main"],
    ["checkpoint", "create", "demo", "../x"],
    ["checkpoint", "rm", "-f", "a/../b"],
    ["restore", "/etc"],
    ["fork", "a b"],
  ]) {
    const { status, stderr } = await runCli(t, args);
    assert.equal(status, 125);
    assert.match(stderr, /is not a valid name\nUse 1 to 63/);
  }
  assert.deepEqual([fake.all.size, fake.checkpoints.all.size], [1, 0]);
});

test("a signal ends a checkpoint that is being made", async (t) => {
  const { fake } = await setUp(t);
  fake.checkpoints.hold = new Promise(() => {});
  const creating = startCli(t, ["checkpoint", "create", "demo"]);
  await until(() => fake.checkpoints.waiting !== 0);
  creating.kill("SIGINT");
  const { status, stdout } = await creating.done;
  assert.deepEqual([status, stdout.length], [130, 0]);
  await until(() => fake.checkpoints.cancelled !== 0);
});

test("the next checkpoint is waited for; a restore is told of other ids and specifications", async (t) => {
  const { fake } = await setUp(t);
  const waiting = startCli(t, ["wait", "--checkpoint", "demo"]);
  await until(() => fake.checkpoints.waiting !== 0);
  const [id = ""] = lines(await ok(t, "checkpoint", "create", "demo", "before"));
  assert.deepEqual(lines(await waiting.done), [id]);
  const path = join(t.dir, "config.json");
  await writeFile(path, JSON.stringify({ process: { args: ["wait"] } }));
  const args = ["--container", "main=other", "--spec", `main=${path}`, "--spec-validation", "warn"];
  const [, finding] = lines(await ok(t, "restore", "--dry-run", "--json", ...args, "before"));
  assert.deepEqual(JSON.parse(JSON.parse(finding ?? "").detail), {
    containers: [{ name: "main", id: "other", spec: { process: { args: ["wait"] } } }],
    specValidation: "warn",
  });
  await ok(t, "restore", "--name", "again", "before");
  assert.deepEqual(lines(await ok(t, "wait", "--restore", "again")), ["again"]);
  for (const wrong of [
    ["--container", "main"],
    ["--spec", "main=/none"],
    ["--spec-validation", "perhaps"],
  ]) {
    assert.equal((await runCli(t, ["restore", ...wrong, "before"])).status, 125, wrong.join(" "));
  }
});
