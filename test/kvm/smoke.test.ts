/** What touches the VM, under real KVM: run by `npm run test:kvm` inside an emulated machine that has it (tools/kvm). */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { runCli, test } from "../support/harness.ts";

/** Everything here is several times slower than on real hardware. */
const TIMEOUT_MS = 400_000;
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
    await cli("update", "--vm-cpus", "3", "--vm-memory", "512m", "growing");
    assert.equal(await cli("exec", "growing", "nproc"), "3");
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
    const cli = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await runCli(t, args, { timeoutMs: TIMEOUT_MS });
      assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
      return stdout.toString().trim();
    };
    const script = "i=0; while :; do i=$((i+1)); echo $i >> /numbers; sleep 1; done";
    await cli("run", "-d", "--name", "source", "--accel", "kvm", "busybox", "sh", "-c", script);
    await cli("exec", "source", "sh", "-c", "head -c 2000000 /dev/urandom > /data; sync");
    const digest = await cli("exec", "source", "md5sum", "/data");
    await cli("checkpoint", "create", "source", "kept");
    await cli("fork", "--name", "forked", "source");
    await cli("rm", "-f", "source");
    await cli("restore", "--name", "restored", "kept");
    const hostnames = new Set<string>();
    for (const copy of ["forked", "restored"]) {
      assert.equal(await cli("exec", copy, "md5sum", "/data"), digest);
      const numbers = (await cli("exec", copy, "cat", "/numbers")).split("\n").map(Number);
      assert.deepEqual(
        numbers,
        numbers.map((_, index) => index + 1),
      );
      hostnames.add(await cli("exec", copy, "hostname"));
    }
    assert.equal(hostnames.size, 2);
    await cli("rm", "-f", "forked", "restored");
    await cli("checkpoint", "rm", "kept");
  },
  OPTIONS,
);
