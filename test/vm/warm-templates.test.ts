/** A template made of a sandbox that runs a program: what is started from it has the program running, in memory that they share. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { runCli, type TestScope, test } from "../support/harness.ts";

/** Loads what takes memory, then counts; a copy goes on with the next number. */
const APPLICATION =
  "head -c 40000000 /dev/urandom > /dev/shm/loaded; md5sum < /dev/shm/loaded > /sum; echo loaded; i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done";
const COPIES = 2;
/** Guest pages that a start may cost, in bytes: what the copy has changed, and not what the program has loaded. */
const OWN_MAX_BYTES = 25_000_000;

async function cli(t: TestScope, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

async function logs(t: TestScope, name: string): Promise<string[]> {
  return (await cli(t, "logs", name)).split("\n").filter(Boolean);
}

/** Bytes of the guest's memory that are the VMM's own: of the mapping that is the file of the sandbox's memory. */
async function ownBytes(pid: number, id: string): Promise<number> {
  const maps = (await readFile(`/proc/${pid}/smaps`, "utf8")).split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const memory = maps.filter((map) => map.includes(`${id}/memory`));
  assert.ok(memory.length > 0, "the sandbox's memory is mapped from a file");
  return memory.reduce((sum, map) => sum + Number(/^Anonymous: +(\d+) kB$/m.exec(map)?.[1] ?? 0) * 1024, 0);
}

test(
  "a template of a sandbox: its program runs in everything that is started from it, in shared memory",
  async (t) => {
    await cli(t, "run", "-d", "--name", "app", "busybox", "sh", "-c", APPLICATION);
    while (!(await logs(t, "app")).includes("3")) await sleep(300);
    const digest = (await cli(t, "template", "build", "--from", "app", "--name", "warm")).trim();
    assert.match(digest, /^[0-9a-f]{64}$/);
    const listed = (await cli(t, "template", "ls", "--json")).trim().split("\n");
    const [template] = listed.map((line) => JSON.parse(line)).filter(({ name }) => name === "warm");
    assert.deepEqual([template.digest, template.isTemplate, template.source.name], [digest, true, "app"]);
    assert.equal(JSON.parse(await cli(t, "template", "inspect", digest.slice(0, 12))).id, template.id);
    await cli(t, "rm", "-f", "app");
    await cli(t, "daemon", "stop");

    const sum = await cli(t, "run", "--rm", "--template", "warm", "cat", "/sum");
    for (let copy = 1; copy <= COPIES; copy += 1) {
      await cli(t, "create", "--template", copy === 1 ? digest.slice(0, 12) : "warm", "--name", `c${copy}`);
    }
    for (let copy = 1; copy <= COPIES; copy += 1) {
      const name = `c${copy}`;
      assert.equal(await cli(t, "exec", name, "sh", "-c", `echo ${copy} > /own; md5sum < /dev/shm/loaded`), sum);
      const before = await logs(t, name);
      while ((await logs(t, name)).length <= before.length) await sleep(300);
      const counted = (await logs(t, name)).slice(1).map(Number);
      assert.deepEqual(
        counted,
        counted.map((_, index) => index + 1),
      );
      const { id, vmm, generation } = JSON.parse(await cli(t, "inspect", name));
      assert.deepEqual([vmm.template, generation], [digest, 1]);
      const own = await ownBytes(vmm.pid, id);
      assert.ok(own < OWN_MAX_BYTES, `${name} has ${own} bytes of its own`);
    }
    for (let copy = 1; copy <= COPIES; copy += 1)
      assert.equal(await cli(t, "exec", `c${copy}`, "cat", "/own"), `${copy}\n`);
    // Those that run need it no more.
    assert.equal(await cli(t, "template", "rm", "warm"), `${digest}\n`);
    assert.equal(await cli(t, "exec", "c1", "cat", "/own"), "1\n");
    const gone = await runCli(t, ["run", "--template", "warm"]);
    assert.equal(gone.status, 125);
    assert.match(gone.stderr, /there is no template "warm"/);
  },
  { timeoutMs: 600_000 },
);
