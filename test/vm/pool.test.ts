/** VMs and VMMs that wait for a sandbox, in a daemon: with every kind of network they are taken, and their network is that of the sandbox. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { runCli, startCli, type TestScope, test } from "../support/harness.ts";
import { networkHost } from "../support/network-host.ts";
import { until } from "../support/until.ts";

const timeoutMs = 60_000;
const SERVE = ["sh", "-c", 'echo "hello from $(hostname)" >/tmp/index.html; exec httpd -f -h /tmp'];
const MODES = ["none", "user", "bridge"] as const;

interface Place {
  /** Ids of what has waited so far, the latest last. */
  waiting(): readonly string[];
  /** Namespaces of those that have waited. */
  namespaces(): Promise<number>;
  say(...args: readonly string[]): Promise<string>;
  /** What the server of a sandbox answers. */
  ask(name: string): Promise<{ readonly hostname: string; readonly answer: string }>;
  run(name: string): Promise<string>;
  stop(): Promise<void>;
}

/** A daemon that keeps so much of something waiting, which its log calls `what`. */
async function open(
  t: TestScope,
  mode: (typeof MODES)[number],
  option: string,
  what: string,
  count = "1",
): Promise<Place> {
  const host = await networkHost(t);
  const daemon = startCli(t, ["daemon", "run", option, count], { within: host.within });
  await until(() => daemon.stderrText().includes("listening"), { what: "the daemon", timeoutMs });
  const line = new RegExp(`a ${what} waits for a sandbox sandbox="?(\\w+)`, "g");
  const waiting = (): string[] => [...daemon.stderrText().matchAll(line)].map(([, id = ""]) => id);
  const say = async (...args: readonly string[]): Promise<string> => {
    const { status, stdout, stderr } = await runCli(t, args, { within: host.within });
    assert.equal(status, 0, stderr);
    return stdout.toString().trim();
  };
  const ports = mode === "none" ? [] : ["-p", "127.0.0.1::80"];
  return {
    waiting,
    say,
    namespaces: async () =>
      (await readdir("/run/netns")).filter((name) => waiting().some((id) => name.endsWith(id))).length,
    run: (name) => say("run", "-d", "--name", name, "--network", mode, ...ports, "busybox", ...SERVE),
    ask: async (name) => {
      const { hostname, ports: published } = JSON.parse(await say("inspect", "--json", name));
      const url = `http://127.0.0.1:${published[0].hostPort}/`;
      let answer: string | undefined;
      await until(
        async () => {
          answer = await host.run("curl", "-sS", "-m", "5", url);
          return answer !== undefined;
        },
        { what: url, timeoutMs },
      );
      return { hostname, answer: answer?.trim() ?? "" };
    },
    stop: async () => {
      daemon.kill("SIGTERM");
      await daemon.done;
    },
  };
}

for (const mode of MODES) {
  test(`a sandbox with network ${mode} takes the VM that waits for it, and is reached where it says`, async (t) => {
    const place = await open(t, mode, "--pool", "VM");
    await place.run("first");
    await until(() => place.waiting().length === 1, { what: "a VM that waits", timeoutMs });
    assert.equal(await place.namespaces(), mode === "none" ? 0 : 1);
    const id = await place.run("second");
    assert.deepEqual(place.waiting(), [id]);
    for (const name of mode === "none" ? [] : ["first", "second"]) {
      const { hostname, answer } = await place.ask(name);
      assert.equal(answer, `hello from ${hostname}`);
    }
    await until(() => place.waiting().length === 2, { what: "another one that waits", timeoutMs });
    await place.say("rm", "-f", "first", "second");
    await place.stop();
    assert.equal(await place.namespaces(), 0, "what waited is gone with the daemon");
  });

  test(`copies with network ${mode} take the VMM that waits for them, and are reached where they say`, async (t) => {
    const place = await open(t, mode, "--spares", "spare VMM");
    await place.run("source");
    const isServing = async (name: string): Promise<void> => {
      if (mode !== "none") assert.match((await place.ask(name)).answer, /^hello from /);
    };
    await isServing("source");
    await place.say("fork", "source", "--name", "first");
    await until(() => place.waiting().length === 1, { what: "a VMM that waits", timeoutMs });
    assert.equal(await place.namespaces(), mode === "none" ? 0 : 1);
    const id = await place.say("fork", "source", "--name", "second");
    assert.deepEqual(place.waiting(), [id]);
    await isServing("second");
    assert.equal(await place.say("exec", "second", "hostname"), id);
    await until(() => place.waiting().length === 2, { what: "another one that waits", timeoutMs });
    await place.say("checkpoint", "create", "source", "saved");
    const restored = await place.say("restore", "saved", "--name", "third");
    assert.deepEqual(place.waiting()[1], restored);
    await isServing("third");
    await until(() => place.waiting().length === 3, { what: "a third one that waits", timeoutMs });
    await place.say("rm", "-f", "source", "first", "second", "third");
    await place.stop();
    assert.equal(await place.namespaces(), 0, "what waited is gone with the daemon");
  });
}

test("many forks at once take VMMs that have mapped one file, have what the source had by then, and diverge", async (t) => {
  const place = await open(t, "bridge", "--spares", "spare VMM", "3");
  const checkpoints = join(t.dir, "root/checkpoints");
  await place.run("source");
  await place.say("fork", "source", "-n", "2", "--name", "first-{n}");
  await until(() => place.waiting().length === 3, { what: "VMMs that wait", timeoutMs });
  const waiting = place.waiting();
  const [canvas = "", ...others] = await readdir(checkpoints);
  assert.deepEqual(others, []);
  await place.say("exec", "source", "sh", "-c", "echo later > /dev/shm/mark");
  const ids = (await place.say("fork", "source", "-n", "2", "--name", "second-{n}")).split("\n");
  assert.deepEqual(
    ids.map((id) => waiting.includes(id)),
    [true, true],
  );
  for (const [index, id] of ids.entries()) {
    assert.match((await place.ask(id)).answer, /^hello from /);
    const seen = await place.say("exec", id, "sh", "-c", `cat /dev/shm/mark; echo ${index} > /dev/shm/mark; hostname`);
    assert.equal(seen, `later\n${id}`);
  }
  for (const [index, id] of ids.entries())
    assert.equal(await place.say("exec", id, "cat", "/dev/shm/mark"), String(index));
  await until(() => place.waiting().length === 6, { what: "others that wait", timeoutMs });
  assert.equal((await readdir(checkpoints)).includes(canvas), false);
  // The third was too many.
  assert.equal(await place.namespaces(), 5);
  // A fork of a fork, whose memory is mapped from what they share, and its checkpoint.
  const again = await place.say("fork", ids[0] ?? "", "--name", "again");
  assert.equal(await place.say("exec", again, "cat", "/dev/shm/mark"), "0");
  await place.say("checkpoint", "create", ids[1] ?? "", "saved");
  const restored = await place.say("restore", "saved");
  assert.equal(await place.say("exec", restored, "cat", "/dev/shm/mark"), "1");
  await place.say("rm", "-f", "source", "first-1", "first-2", "again", restored, ...ids);
  await place.say("checkpoint", "rm", "saved");
  await place.stop();
  assert.deepEqual([await place.namespaces(), await readdir(checkpoints)], [0, []]);
});
