/** Commands as a user types them, and scripts read them, over a daemon whose sandboxes are fakes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type CliResult, runCli, type TestScope, test } from "../../test/support/harness.ts";
import { serveFake } from "../../test/support/served-fake.ts";

const lines = ({ stdout }: CliResult): string[] => stdout.toString().split("\n").filter(Boolean);

async function ok(t: TestScope, ...args: string[]): Promise<string[]> {
  const result = await runCli(t, args);
  assert.equal(result.status, 0, `${args.join(" ")}: ${result.stderr}`);
  return lines(result);
}

const running = { image: "busybox:latest", container: { command: ["wait"] } };

test("with --json each line of every command is one object, and nothing else is printed", async (t) => {
  const fake = await serveFake(t);
  await fake.sandboxes.create({ ...running, name: "demo" });
  await fake.sandboxes.create({ ...running, name: "other" });
  const commands = `version; doctor; completion fish; daemon status; metrics; events --after 0 --no-follow; prune;
    create busybox wait; run -d --name new busybox wait; exec -d demo wait; ps; ps -a; inspect demo; inspect demo/main other;
    stats --no-stream; top; logs demo; rename new newer; pause demo; resume demo; update -m 100m demo; kill -s TERM demo;
    hibernate other; wake other; stop newer; start newer; stop newer; rm newer;
    checkpoint create demo before; checkpoint ls; checkpoint inspect before; checkpoint verify before;
    restore --name again before; restore --dry-run before; fork -n 2 demo; checkpoint rm before;
    volume create data; volume ls; volume inspect data; volume rm data; volume prune -f;
    device add demo /dev/null; device ls demo; device rm demo d-0;
    network interface add demo eth0; network interface ls demo; network interface rm demo eth0;
    network route set demo default@10.0.0.1%eth0; network route ls demo; network refresh demo;
    image ls; image inspect busybox; image prune; guest ls; template ls`;
  for (const command of commands.split(/;\s+/)) {
    const printed = await ok(t, "--json", ...command.split(" "));
    for (const line of printed) {
      const value: unknown = JSON.parse(line);
      assert.ok(typeof value === "object" && value !== null && !Array.isArray(value), `${command}: ${line}`);
      checkFacts(value, command);
    }
    if (!/^(checkpoint rm|template|events|logs)/.test(command)) assert.ok(printed.length > 0, command);
  }
});

/** Times are RFC 3339, sizes bytes. */
function checkFacts(value: unknown, command: string): void {
  if (typeof value !== "object" || value === null) return;
  for (const [name, each] of Object.entries(value)) {
    assert.doesNotMatch(name, /AtMs$|Mib$/, `${command}: ${name}`);
    if (/^(at|time|.+At)$/.test(name) && each !== undefined)
      assert.match(String(each), /^\d{4}-\d\d-\d\dT.*Z$/, command);
    checkFacts(each, command);
  }
}

test("of several names each has its turn, and every failure is told", async (t) => {
  const fake = await serveFake(t);
  for (const name of ["one", "two", "three"]) await fake.sandboxes.create({ ...running, name });
  await fake.volumes.create({ name: "data" });
  const partly = await runCli(t, ["stop", "nope", "one", "none", "two"]);
  assert.deepEqual([partly.status, lines(partly)], [125, ["one", "two"]]);
  assert.match(partly.stderr, /no sandbox "nope"\n[\s\S]*no sandbox "none"\n/);
  assert.deepEqual(await ok(t, "rm", "-f", "nope", "one", "two/nope"), ["one"]);
  assert.deepEqual(
    [...fake.all.values()].map(({ name }) => name),
    ["two", "three"],
  );
  const unsafe = await runCli(t, ["rm", "two", "../three"]);
  assert.deepEqual([unsafe.status, lines(unsafe), fake.all.size], [125, [], 2]);
  const volumes = await runCli(t, ["volume", "rm", "nope", "data", "none"]);
  assert.deepEqual([volumes.status, lines(volumes), fake.volumes.all.size], [125, ["data"], 0]);
  assert.equal(volumes.stderr.match(/there is no volume/g)?.length, 2);
  assert.deepEqual(await ok(t, "volume", "rm", "-f", "nope"), []);
  const inspected = await runCli(t, ["inspect", "nope", "three", "--format", "{{.name}}"]);
  assert.deepEqual([inspected.status, lines(inspected)], [125, ["three"]]);
  assert.deepEqual(await ok(t, "image", "rm", "-f", "nope", "none"), []);
  const images = await runCli(t, ["image", "rm", "nope", "busybox"]);
  assert.deepEqual([images.status, lines(images)], [125, []]);
  assert.match(images.stderr, /there is no image "nope"\n[\s\S]*cannot be removed/);
});

test("names and words that could do harm are refused before anybody is asked, and shown cut short", async (t) => {
  const fake = await serveFake(t);
  await fake.sandboxes.create({ ...running, name: "demo" });
  const long = "x".repeat(100_000);
  for (const name of ["", "..", "../demo", "-demo", "a b", "ü", "demo\n", "\u001b[31m", long]) {
    for (const args of [
      ["inspect", "--", name],
      ["rename", "demo", "--", name],
      ["exec", "--", name, "wait"],
      ["checkpoint", "create", "demo", "--", name],
      ["restore", "--", name],
    ]) {
      const { status, stdout, stderr } = await runCli(t, args);
      assert.deepEqual([status, stdout.length], [125, 0], `${args[0]} ${JSON.stringify(name.slice(0, 20))}`);
      assert.ok(stderr.length < 600 && !stderr.includes("\u001b"), stderr.slice(0, 1000));
    }
  }
  assert.deepEqual([fake.all.size, fake.volumes.all.size, fake.checkpoints.all.size], [1, 0, 0]);
});

test("text of others has no power over the terminal, and stays on its line", async (t) => {
  const fake = await serveFake(t);
  const command = ["sh", "-c", "\u001b[2J\u009b1m\nrm\r"];
  await fake.sandboxes.create({ image: "busybox", name: "demo", container: { command } });
  const { stdout } = await runCli(t, ["ps"]);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for
  assert.doesNotMatch(stdout.toString(), /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  assert.equal(lines({ ...(await runCli(t, ["ps"])) }).length, 2);
  // Scripts get it as it is.
  const [line = ""] = await ok(t, "ps", "--json");
  assert.deepEqual(JSON.parse(line).containers[0].command, command);
});

test("ps: what runs, everything, ids alone, and what a filter lets through", async (t) => {
  const fake = await serveFake(t);
  for (const [name, annotations] of [
    ["web", { tier: "front" }],
    ["worker", { tier: "back" }],
    ["old", {}],
  ] as const) {
    await fake.sandboxes.create({ ...running, name, annotations });
  }
  fake.find("old").move("stopped");
  fake.find("worker").move("paused");
  const names = async (...args: string[]): Promise<unknown[]> =>
    (await ok(t, "ps", "--json", ...args)).map((line) => JSON.parse(line).name);
  assert.deepEqual(await ok(t, "ps", "-q"), [fake.find("web").id, fake.find("worker").id]);
  assert.deepEqual(await names("-a"), ["web", "worker", "old"]);
  assert.deepEqual(await names("-f", "state=stopped"), ["old"]);
  assert.deepEqual(await names("--filter", "status=paused"), ["worker"]);
  assert.deepEqual(await names("-f", "state=running", "-f", "state=paused"), ["web", "worker"]);
  assert.deepEqual(await names("-f", "name=w", "-f", "name=ol", "-a"), ["web", "worker", "old"]);
  assert.deepEqual(await names("-f", "image=busybox"), ["web", "worker"]);
  assert.deepEqual(await names("-f", "annotation=tier"), ["web", "worker"]);
  assert.deepEqual(await names("-f", "annotation=tier", "-f", "annotation=tier=back"), ["worker"]);
  assert.deepEqual(await names("-f", `id=${fake.find("web").id.slice(0, 5)}`), ["web"]);
  for (const filter of ["", "name", "nonesuch=1", "state=asleep"]) {
    const { status, stderr } = await runCli(t, ["ps", "-f", filter]);
    assert.equal(status, 125, filter);
    assert.match(stderr, /\nFilter by|\nThere are ready, running/);
  }
});

test("inspect: JSON to read, JSON for scripts, and by a template", async (t) => {
  const fake = await serveFake(t);
  const { id } = await fake.sandboxes.create({ ...running, name: "demo" });
  const pretty = (await runCli(t, ["inspect", "demo"])).stdout.toString();
  const compact = (await runCli(t, ["inspect", "--json", "demo"])).stdout.toString();
  assert.equal(pretty, `${JSON.stringify(JSON.parse(compact), undefined, 2)}\n`);
  assert.equal((await runCli(t, ["inspect", "-f", "json", "demo"])).stdout.toString(), compact);
  assert.deepEqual(await ok(t, "inspect", "--format", "{{.ID}} {{.Name}}", "demo"), [`${id} demo`]);
  const facts = JSON.parse(compact);
  for (const name of ["id", "name", "state", "generation", "containers", "mounts", "network", "ports"]) {
    assert.ok(Object.hasOwn(facts, name), name);
  }
});

test("an error is one line, and what to do the next; a stack only for those who ask", async (t) => {
  await serveFake(t);
  const args = ["run", "missing", "wait"];
  const cause = "the index could not be read: EIO: sad";
  const { stderr } = await runCli(t, args);
  const [what = "", remedy = "", ...rest] = stderr.trimEnd().split("\n");
  assert.deepEqual([what, rest], [`belljar: no image missing: ${cause}`, []]);
  assert.match(remedy, /belljar image ls/);
  const full = await runCli(t, ["--log-level", "debug", ...args]);
  assert.match(
    full.stderr,
    /belljar: no image missing: .*\n.*belljar image ls.*\n[\s\S]*\n {4}at .*\n[\s\S]*caused by: /,
  );
});

test("one who only asks whether there is a daemon starts none", async (t) => {
  const root = join(t.dir, "root");
  assert.deepEqual(JSON.parse((await runCli(t, ["daemon", "status", "--json"])).stdout.toString()), {
    running: false,
    root,
  });
  assert.equal((await runCli(t, ["daemon", "stop"])).status, 0);
  assert.equal((await runCli(t, ["metrics"])).status, 125);
  assert.deepEqual(await ok(t, "__complete", "--", "rm", ""), []);
  assert.equal((await runCli(t, ["daemon", "status"])).status, 3);
});
