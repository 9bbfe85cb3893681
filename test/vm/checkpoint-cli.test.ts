/** A program that counts in its memory, through the command line: every copy goes on where it was, under a name of its own. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { runCli, type TestScope, test } from "../support/harness.ts";

/** Each line says who wrote it: a copy has another host name than its source, from its first instruction on. */
const COUNTING = "n=0; while :; do n=$((n+1)); read h </proc/sys/kernel/hostname; echo $n $h; sleep 0.1; done";

/** Each look is a program of its own, which takes from the VMs what they need to go on. */
const POLL_MS = 500;
/** Seven VMs, one after the other. */
const TIMEOUT_MS = 600_000;

async function cli(t: TestScope, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

async function lines(t: TestScope, ...args: string[]): Promise<string[]> {
  return (await cli(t, ...args)).split("\n").filter(Boolean);
}

interface Facts {
  readonly id: string;
  readonly name: string;
  readonly hostname: string;
  readonly generation: number;
}

async function inspect(t: TestScope, name: string): Promise<Facts> {
  return JSON.parse(await cli(t, "inspect", name));
}

/** What the sandbox itself has written, once that is more than `count` numbers. */
async function numbers(t: TestScope, name: string, count = 0): Promise<number[]> {
  const { hostname } = await inspect(t, name);
  for (;;) {
    const own = (await lines(t, "logs", name))
      .map((line) => line.split(" "))
      .filter(([, writer]) => writer === hostname);
    if (own.length > count) return own.map(([number]) => Number(number));
    await sleep(POLL_MS);
  }
}

/** No number is missing, and none comes twice. */
function assertCountsOn(counted: readonly number[]): void {
  const [first = 0] = counted;
  assert.deepEqual(
    counted,
    counted.map((_, index) => first + index),
  );
}

test(
  "a counter is checkpointed, restored twice and forked three ways: all go on from the same number",
  async (t) => {
    const [source = ""] = await lines(t, "run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNTING);
    await numbers(t, "counter", 3);

    const [checkpoint = ""] = await lines(t, "checkpoint", "create", "counter", "one");
    assert.deepEqual(await lines(t, "checkpoint", "ls", "-q"), [checkpoint]);
    const facts = JSON.parse(await cli(t, "checkpoint", "inspect", "one"));
    assert.deepEqual([facts.id, facts.name, facts.source.id], [checkpoint, "one", source]);
    assert.ok(facts.pagesBytes > 0 && facts.devicesBytes > 0 && facts.pauseMs > 0, JSON.stringify(facts));
    assert.deepEqual(await lines(t, "checkpoint", "verify", "one"), ["one"]);
    await cli(t, "restore", "--dry-run", "one");

    const starts: number[] = [];
    const hostnames = new Set<string>();
    const restore = async (name: string): Promise<void> => {
      const [id] = await lines(t, "restore", "--name", name, "one");
      const copy = await inspect(t, name);
      assert.deepEqual([copy.id, copy.name, copy.generation], [id, name, 1]);
      hostnames.add(copy.hostname);
      const counted = await numbers(t, name, 3);
      assertCountsOn(counted);
      starts.push(counted[0] ?? 0);
    };
    for (const name of ["r1", "r2"]) await restore(name);
    assert.equal(starts[0], starts[1]);
    await cli(t, "rm", "-f", "r1", "r2");

    const ids = await lines(t, "fork", "-n", "3", "--name", "f{n}", "counter");
    const forked = await Promise.all(["f1", "f2", "f3"].map((name) => numbers(t, name, 3)));
    for (const counted of forked) assertCountsOn(counted);
    assert.equal(new Set(forked.map(([first]) => first)).size, 1, "all forks are of one instant");
    assert.ok((forked[0]?.[0] ?? 0) > (starts[0] ?? 0), "the source had gone on since the checkpoint");
    assert.deepEqual((await lines(t, "ps", "-q")).sort(), [source, ...ids].sort());
    // The source has lost nothing, neither at the checkpoint nor at the fork.
    const all = await numbers(t, "counter", forked[0]?.at(-1) ?? 0);
    assertCountsOn(all);
    assert.equal(all[0], 1);
    await cli(t, "rm", "-f", "f1", "f2", "f3");

    // The checkpoint needs neither its source nor the daemon that made it.
    await cli(t, "rm", "-f", "counter");
    await cli(t, "daemon", "stop");
    await restore("late");
    assert.equal(starts[2], starts[0]);
    assert.equal(hostnames.size, 3);
    await cli(t, "checkpoint", "rm", "one");
    assert.deepEqual(await lines(t, "checkpoint", "ls", "-q"), []);
    const before = (await numbers(t, "late")).length;
    await numbers(t, "late", before + 3);
  },
  { timeoutMs: TIMEOUT_MS },
);
