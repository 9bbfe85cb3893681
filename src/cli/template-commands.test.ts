/** Templates that are made of sandboxes, as a user types it, over a daemon whose sandboxes are fakes. */
import assert from "node:assert/strict";
import type { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { runCli, type TestScope, test } from "../../test/support/harness.ts";
import { serveFake } from "../../test/support/served-fake.ts";

async function setUp(t: TestScope): Promise<FakeRuntime> {
  const fake = await serveFake(t);
  await fake.sandboxes.create({ image: "fake", name: "demo", container: { command: ["wait"] } });
  return fake;
}

async function ok(t: TestScope, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

test("a template of a sandbox is made, and sandboxes run from it; it is not among the checkpoints", async (t) => {
  const fake = await setUp(t);
  const made = JSON.parse(await ok(t, "template", "build", "--from", "demo", "--name", "web", "--json"));
  const { info } = fake.checkpoints.find("web");
  assert.deepEqual(made, { digest: info.digest, id: info.id, name: "web" });
  assert.equal(info.isTemplate, true);
  assert.equal(await ok(t, "checkpoint", "ls", "-q"), "");
  const created = await ok(t, "create", "--template", "web", "--name", "one");
  assert.equal(created, `${fake.find("one").id}\n`);
  const detached = await ok(t, "run", "-d", "--template", "web", "--name", "two");
  assert.equal(detached, `${fake.find("two").id}\n`);
  // Its status is the command's own, which is 3 in every fake.
  const ran = await runCli(t, ["run", "--rm", "--template", "web", "pattern", "3"]);
  assert.deepEqual([ran.status, ran.stdout.toString("hex")], [3, "001f3e"], ran.stderr);
  assert.equal(fake.all.size, 3);
});

test("what a template has decided is refused before anything is asked", async (t) => {
  const fake = await setUp(t);
  await ok(t, "template", "build", "--from", "demo", "--name", "web");
  for (const [args, message] of [
    [["run", "--template", "web", "-m", "512m"], /--memory is as it was in the template/],
    [["run", "-d", "--template", "web", "-e", "A=1"], /--env is of a command, and there is none/],
    [["create", "--template", "web", "busybox"], /takes no image and no command/],
    [["run", "-d"], /missing required argument 'image'/],
    [["template", "build", "--name", "web"], /--from/],
    [["template", "build", "--from", "demo", "-m", "512m"], /the size and the domain of the sandbox/],
    [["template", "build", "--from", "none"], /none/],
  ] as const) {
    const { status, stderr } = await runCli(t, args);
    assert.equal(status, 125, args.join(" "));
    assert.match(stderr, message);
  }
  assert.deepEqual([fake.all.size, fake.checkpoints.all.size], [1, 1]);
});
