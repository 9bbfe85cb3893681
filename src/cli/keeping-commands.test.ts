/** What a sandbox does in the long run, as a user asks for it, over a daemon whose sandboxes are fakes. */
import assert from "node:assert/strict";
import { type CliResult, runCli, type TestScope, test } from "../../test/support/harness.ts";
import { serveFake } from "../../test/support/served-fake.ts";

async function ok(t: TestScope, ...args: string[]): Promise<string> {
  const result = await runCli(t, args);
  assert.equal(result.status, 0, `${args.join(" ")}: ${result.stderr}`);
  return result.stdout.toString().trim();
}

test("hibernate and wake: by any name, several at once; ps and inspect tell", async (t) => {
  const fake = await serveFake(t);
  for (const name of ["one", "two"]) {
    await ok(t, "create", "--name", name, "--idle-timeout", "1.5h", "busybox", "wait");
    fake.find(name).move("running");
  }
  assert.equal(await ok(t, "hibernate", "one", "two"), "one\ntwo");
  assert.match(await ok(t, "ps"), /one .* hibernated/);
  const { state, idleTimeoutMs, hibernatedAt } = JSON.parse(await ok(t, "inspect", "one"));
  assert.deepEqual([state, idleTimeoutMs, hibernatedAt], ["hibernated", 5_400_000, "2023-11-14T22:13:20.000Z"]);
  assert.equal(JSON.parse(await ok(t, "wake", "--json", "one")).id, fake.find("one").id);
  assert.equal(JSON.parse(await ok(t, "inspect", "one")).state, "running");
  const wrong: CliResult = await runCli(t, ["hibernate", "one/main"]);
  assert.equal(wrong.status, 125);
});

test("a trail and restarts: asked for, checked, told; rewind by name, by age, and to the latest", async (t) => {
  const fake = await serveFake(t);
  const long = ["--checkpoint-every", "10m", "--keep", "3", "--restart", "from-checkpoint:5"];
  await ok(t, "create", "--name", "demo", ...long, "busybox", "wait");
  const { trail, restart } = JSON.parse(await ok(t, "inspect", "demo"));
  assert.deepEqual(
    [trail, restart],
    [
      { everyMs: 600_000, keep: 3 },
      { policy: "from-checkpoint", maxRetries: 5, count: 0 },
    ],
  );
  fake.find("demo").move("running");
  const id = await ok(t, "checkpoint", "create", "demo", "before");
  const rewound = (): { checkpoint?: string; beforeMs?: number; keepExec?: boolean } =>
    JSON.parse(fake.find("demo").annotations["rewound"] ?? "{}");
  assert.equal(await ok(t, "rewind", "demo", "--to", "before"), id);
  assert.equal(rewound().checkpoint, "before");
  assert.equal(JSON.parse(await ok(t, "rewind", "--json", "--keep-exec", "--to", "10m", "demo")).id, id);
  assert.ok(Math.abs(Date.now() - 600_000 - (rewound().beforeMs ?? 0)) < 60_000);
  assert.equal(rewound().keepExec, true);
  await ok(t, "checkpoint", "create", "demo", "5m");
  await ok(t, "rewind", "demo", "--to", "5m");
  assert.equal(rewound().checkpoint, "5m", "a name comes before an age");
  await ok(t, "rewind", "demo");
  assert.deepEqual(rewound(), { keepExec: false });
  for (const words of [
    ["--keep", "3"],
    ["--checkpoint-every", "soon"],
    ["--restart", "always"],
    ["--restart", "on-failure:many"],
    ["--idle-timeout", "-5"],
  ]) {
    const { status, stderr } = await runCli(t, ["create", ...words, "busybox"]);
    assert.equal(status, 125, words.join(" "));
    assert.match(stderr, /--(?:keep|checkpoint-every|restart|idle-timeout)/);
  }
  const none = await runCli(t, ["rewind", "demo", "--to", "never"]);
  assert.match(none.stderr, /there is no checkpoint "never"/);
});
