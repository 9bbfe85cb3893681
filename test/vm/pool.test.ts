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
  waiting(what?: string): readonly string[];
  /** Namespaces of those that have waited. */
  namespaces(): Promise<number>;
  say(...args: readonly string[]): Promise<string>;
  /** What the server of a sandbox answers. */
  ask(name: string): Promise<{ readonly hostname: string; readonly answer: string }>;
  run(name: string): Promise<string>;
  stop(): Promise<void>;
}

/** A daemon that keeps so much of something waiting, which its log calls `what` unless something else is asked for. */
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
  const lines = (which: string): RegExp => new RegExp(`a ${which} waits for a sandbox sandbox="?(\\w+)`, "g");
  const waiting = (which = what): string[] => [...daemon.stderrText().matchAll(lines(which))].map(([, id = ""]) => id);
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
    // The next one of this checkpoint is loaded by then.
    await until(() => place.waiting("standby copy").length === 1, { what: "a copy that waits", timeoutMs });
    const again = await place.say("restore", "saved", "--name", "fourth");
    assert.deepEqual(place.waiting("standby copy")[0], again);
    await isServing("fourth");
    assert.equal(await place.say("exec", "fourth", "hostname"), again);
    await until(() => place.waiting("standby copy").length === 2, { what: "another copy that waits", timeoutMs });
    await place.say("rm", "-f", "source", "first", "second", "third", "fourth");
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

/** Says who it is, counting: whatever a copy wrote before it was told who it is has its source's name. */
const COUNTER = 'i=0; while :; do i=$((i+1)); read h < /proc/sys/kernel/hostname; echo "$h $i"; sleep 0.05; done';

test("a copy that waits was loaded, and its containers stood still: what they do next, they do as the sandbox that it becomes", async (t) => {
  const place = await open(t, "none", "--spares", "standby copy");
  const source = await place.say("run", "-d", "--name", "source", "busybox", "sh", "-c", COUNTER);
  await place.say("exec", "source", "sh", "-c", "echo one > /root/mark; echo two > /dev/shm/mark");
  await place.say("checkpoint", "create", "source", "saved");
  /** The last number that was counted as the source, of those that a copy's log has. */
  const countedBefore = async (id: string): Promise<number> => {
    let lines: string[] = [];
    await until(
      async () => {
        lines = (await place.say("logs", id)).split("\n");
        return lines.filter((line) => line.startsWith(`${id} `)).length > 3;
      },
      { what: `what ${id} says`, timeoutMs },
    );
    const numbers = lines.map((line) => Number(line.split(" ")[1]));
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => (numbers[0] ?? 0) + index),
      "none twice, none missing",
    );
    const names = lines.map((line) => line.split(" ")[0]);
    assert.deepEqual([...new Set(names)], [source, id]);
    return numbers[names.lastIndexOf(source)] ?? 0;
  };
  const first = await place.say("restore", "saved");
  const expected = await countedBefore(first);
  for (let turn = 0; turn < 2; turn += 1) {
    await until(() => place.waiting().length > turn, { what: "a copy that waits", timeoutMs });
    const id = await place.say("restore", "saved");
    assert.equal(id, place.waiting()[turn]);
    assert.equal(await countedBefore(id), expected);
    // Its memory and its disk are the checkpoint's, and its own.
    const look =
      "cat /root/mark /dev/shm/mark; echo changed > /root/mark; echo changed > /dev/shm/mark; sync; hostname";
    assert.equal(await place.say("exec", id, "sh", "-c", look), `one\ntwo\n${id}`);
    const clock = Number(await place.say("exec", id, "date", "+%s"));
    assert.ok(Math.abs(clock - Date.now() / 1000) < 5, `its clock says ${clock}`);
    // What is made of it, it can be made of again; and it starts from its disk.
    await place.say("checkpoint", "create", id, `of-${turn}`);
    await place.say("stop", "-t", "1", id);
    await place.say("start", id);
    assert.equal(await place.say("exec", id, "cat", "/root/mark"), "changed");
    await place.say("rm", "-f", id);
  }
  await place.say("checkpoint", "rm", "saved");
  await place.say("rm", "-f", "source", first);
  const again = await place.say("restore", "of-0");
  assert.equal(await place.say("exec", again, "cat", "/root/mark", "/dev/shm/mark"), "changed\nchanged");
  await place.say("rm", "-f", again);
  await place.stop();
});
