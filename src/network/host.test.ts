import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../../test/support/harness.ts";
import { BelljarError } from "../base/index.ts";
import { hostNameServer } from "./host-facts.ts";
import { explain } from "./namespace.ts";
import { slirpArguments } from "./slirp.ts";

test("name server: the first that is not the host itself, in the files that may name one", async (t) => {
  const dir = await tempDir(t);
  const [first, second] = [join(dir, "first"), join(dir, "second")];
  await writeFile(first, "search x\nnameserver 127.0.0.53\nnameserver ::1\n");
  await writeFile(second, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
  assert.equal(await hostNameServer([first, second]), "192.0.2.1");
  assert.equal(await hostNameServer([first, join(dir, "none")]), undefined);
});

test("slirp4netns: closed in on itself, and no way to the host's loopback", async () => {
  const args = slirpArguments("belljar-x", "/run/x/slirp.sock", []).join(" ");
  assert.match(args, /--disable-host-loopback --disable-dns --enable-sandbox --enable-seccomp/);
  assert.match(args, / \/run\/netns\/belljar-x up0$/);
});

test("a host that lacks something is told what", async () => {
  const failed = (message: string): BelljarError => new BelljarError("HOST_TOOL_FAILED", message);
  const missing = explain("nft", new BelljarError("HOST_TOOL_MISSING", "x"));
  assert.deepEqual([missing.reason, missing.remedy], ["NETWORK_UNAVAILABLE", "Install the Debian package nftables."]);
  assert.match(explain("nsenter", failed("sh: 12: nft: not found")).remedy ?? "", /nftables/);
  assert.match(explain("ip", failed("mount failed: Operation not permitted")).remedy ?? "", /root/);
  assert.match(explain("ip", failed("open: /dev/net/tun: No such file or directory")).remedy ?? "", /tun/);
  const unknown = explain("sh", failed("Error: Unknown device type. type bridge"));
  assert.match(unknown.remedy ?? "", /bridge and veth, or use `--network user`/);
  assert.match(explain("ip", failed("Error: Unknown device type.; Command failed -:1")).remedy ?? "", /--network user/);
  const rule = "/dev/stdin:3:1-9: Error: Could not process rule: Operation not supported";
  assert.match(explain("nft", failed(rule)).remedy ?? "", /nft_nat/);
  const uplink = explain("slirp4netns", new BelljarError("HOST_TOOL_MISSING", "x"));
  assert.match(uplink.remedy ?? "", /slirp4netns, or use `--network bridge`/);
  assert.equal(explain("ip", failed("something else")).reason, "NETWORK_FAILED");
});
