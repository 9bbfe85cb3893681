/** Output that cannot be written, and readers that go away, over a daemon whose sandboxes are fakes. */
import assert from "node:assert/strict";
import { type CliResult, runCli, startCli, type TestScope, test } from "../../test/support/harness.ts";
import { serveFake } from "../../test/support/served-fake.ts";

/** With its standard output in a file system that is full. */
const onFullDisk = (t: TestScope, ...args: string[]): Promise<CliResult> =>
  runCli(t, args, { within: ["sh", "-c", 'exec "$@" > /dev/full', "sh"] });

test("output that does not fit is a failure, whatever the command", async (t) => {
  const fake = await serveFake(t);
  const { id } = await fake.sandboxes.create({ image: "fake", name: "demo", container: { command: ["wait"] } });
  for (const args of [
    ["--help"],
    ["version"],
    ["completion", "bash"],
    ["ps"],
    ["ps", "--json"],
    ["inspect", "demo"],
    ["metrics"],
    ["exec", "demo", "pattern", "100000"],
    ["run", "fake", "pattern", "100000"],
  ]) {
    const { status, stderr } = await onFullDisk(t, ...args);
    assert.equal(status, 125, args.join(" "));
    assert.match(
      stderr,
      /^belljar: the output cannot be written: ENOSPC.*\nWrite it to where there is room for it\.$/m,
    );
  }
  assert.equal(fake.find(id).state, "running");
});

test("what prints for ever ends when nobody reads any more, without a word", async (t) => {
  const fake = await serveFake(t);
  const { id: sandboxId } = await fake.sandboxes.create({
    image: "fake",
    name: "demo",
    container: { command: ["wait"] },
  });
  for (const args of [["events"], ["stats"], ["stats", "--json"]]) {
    const command = startCli(t, args);
    command.closeOutput();
    // So that there is always something more to print.
    const more = setInterval(() => {
      const number = fake.events.length + 1;
      fake.events.push({ kind: "deleted", number, atMs: 1, sandboxId, sandboxName: "demo" });
    }, 50);
    t.after(() => clearInterval(more));
    const { status, stderr } = await command.done;
    clearInterval(more);
    // As if SIGPIPE had ended it.
    assert.deepEqual([status, stderr], [141, ""], args.join(" "));
  }
});
