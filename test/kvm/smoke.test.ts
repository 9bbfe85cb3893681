/** What touches the VM, under real KVM: run by `npm run test:kvm` inside an emulated machine that has it (tools/kvm). */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { type Log, silentLog } from "../../src/base/index.ts";
import { openEmbedded } from "../support/embedded.ts";
import { runCli, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

/** Everything here is several times slower than on real hardware. */
const TIMEOUT_MS = 800_000;
const OPTIONS = { timeoutMs: TIMEOUT_MS };

test(
  "a container runs under KVM, with its streams and its exit status",
  async (t) => {
    const script = "echo out; echo err >&2; cat; exit 7";
    const input = randomBytes(300_000);
    const { status, stdout, stderr } = await runCli(t, ["run", "--accel", "kvm", "-i", "busybox", "sh", "-c", script], {
      input,
      timeoutMs: TIMEOUT_MS,
    });
    assert.equal(stderr, "err\n");
    assert.equal(status, 7);
    assert.ok(stdout.equals(Buffer.concat([Buffer.from("out\n"), input])));
  },
  OPTIONS,
);

test(
  "auto finds KVM",
  async (t) => {
    const { stdout } = await runCli(t, ["doctor"], { timeoutMs: TIMEOUT_MS });
    assert.match(stdout.toString(), /^acceleration\s+yes\s+kvm\b/m);
  },
  OPTIONS,
);

test(
  "a VM grows and shrinks while it runs: memory, and CPUs that are plugged",
  async (t) => {
    const cli = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await runCli(t, args, { timeoutMs: TIMEOUT_MS });
      assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
      return stdout.toString().trim();
    };
    await cli("run", "-d", "--name", "growing", "--accel", "kvm", "busybox", "sleep", "10000");
    // Two are enough. Three took more than 400 s, in a machine of two.
    await cli("update", "--vm-cpus", "2", "--vm-memory", "512m", "growing");
    assert.equal(await cli("exec", "growing", "nproc"), "2");
    await cli("update", "--vm-cpus", "1", "--vm-memory", "256m", "growing");
    assert.equal(await cli("exec", "growing", "nproc"), "1");
    await cli("update", "--vm-cpus", "2", "growing");
    assert.equal(await cli("exec", "growing", "nproc"), "2");
    await cli("rm", "-f", "growing");
  },
  OPTIONS,
);

test(
  "a sandbox is checkpointed, restored and forked, and its copies are somebody else",
  async (t) => {
    const runtime = await openEmbedded(t);
    const script = "i=0; while :; do i=$((i+1)); echo $i >> /numbers; sleep 1; done";
    const container = { command: ["sh", "-c", script] };
    const source = await runtime.sandboxes.create({ image: "busybox", acceleration: "kvm", container });
    const { stdout: digest } = await source.exec([
      "sh",
      "-c",
      "head -c 2000000 /dev/urandom > /data; sync; md5sum /data",
    ]);
    await source.checkpoint({ name: "kept" });
    const [forked] = await source.fork(1);
    await source.delete({ force: true });
    const restored = await runtime.checkpoints.restore("kept");
    const hostnames = new Set<string>();
    for (const copy of [forked, restored]) {
      const shown = await copy?.exec(["sh", "-c", "md5sum /data; hostname; cat /numbers"]);
      const [data, hostname, ...numbers] = (shown?.stdout ?? "").trim().split("\n");
      assert.equal(`${data}\n`, digest);
      assert.deepEqual(
        numbers,
        numbers.map((_, index) => String(index + 1)),
      );
      hostnames.add(hostname ?? "");
      assert.equal((await copy?.info())?.vmm?.acceleration, "kvm");
    }
    assert.equal(hostnames.size, 2);
  },
  OPTIONS,
);

test(
  "a copy that waits, loaded, goes on under KVM as the sandbox that it becomes",
  async (t) => {
    const waiting: unknown[] = [];
    const log: Log = { ...silentLog, info: (_, fields) => void waiting.push(fields?.["sandbox"]) };
    const runtime = await openEmbedded(t, { spareCount: 1, log });
    const script = 'i=0; while :; do i=$((i+1)); echo "$(hostname) $i" >> /numbers; sleep 1; done';
    const container = { command: ["sh", "-c", script] };
    const source = await runtime.sandboxes.create({ image: "busybox", acceleration: "kvm", container });
    await source.exec(["sh", "-c", "echo mark > /dev/shm/mark"]);
    await source.checkpoint({ name: "kept" });
    await (await runtime.checkpoints.restore("kept")).delete({ force: true });
    await until(() => waiting.length > 0, { what: "a copy that waits", timeoutMs: TIMEOUT_MS });
    await using copy = await runtime.checkpoints.restore("kept");
    assert.equal(copy.id, waiting[0]);
    let names: readonly (string | undefined)[] = [];
    await until(
      async () => {
        const { stdout } = await copy.exec(["sh", "-c", "cat /numbers /dev/shm/mark"]);
        const lines = stdout.trim().split("\n");
        assert.equal(lines.pop(), "mark");
        const numbers = lines.map((line) => Number(line.split(" ")[1]));
        assert.deepEqual(
          numbers,
          numbers.map((_, index) => index + 1),
        );
        names = lines.map((line) => line.split(" ")[0]);
        return names.includes(copy.id);
      },
      { what: "the copy's own numbers", timeoutMs: TIMEOUT_MS },
    );
    assert.deepEqual([...new Set(names)], [source.id, copy.id]);
    await source.delete({ force: true });
    await runtime.checkpoints.remove("kept");
  },
  OPTIONS,
);
