/** What touches the VM, under real KVM: run by `npm run test:kvm` inside an emulated machine that has it (tools/kvm). */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { runCli, test } from "../support/harness.ts";

/** Everything here is several times slower than on real hardware. */
const TIMEOUT_MS = 240_000;

test("a container runs under KVM, with its streams and its exit status", async (t) => {
  const script = "echo out; echo err >&2; cat; exit 7";
  const input = randomBytes(300_000);
  const { status, stdout, stderr } = await runCli(t, ["run", "--accel", "kvm", "-i", "busybox", "sh", "-c", script], {
    input,
    timeoutMs: TIMEOUT_MS,
  });
  assert.equal(stderr, "err\n");
  assert.equal(status, 7);
  assert.ok(stdout.equals(Buffer.concat([Buffer.from("out\n"), input])));
});

test("auto finds KVM", async (t) => {
  const { stdout } = await runCli(t, ["doctor"], { timeoutMs: TIMEOUT_MS });
  assert.match(stdout.toString(), /^acceleration\s+yes\s+kvm\b/m);
});
