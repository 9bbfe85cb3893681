import assert from "node:assert/strict";
import { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { tempDir, test } from "../../test/support/harness.ts";
import { silentLog } from "../base/index.ts";
import { startDaemon } from "../daemon/index.ts";
import { type NetworkConfig, Runtime } from "./index.ts";

test("a sandbox's network arrives as it was asked for, and its interfaces and routes are seen and changed", async (t) => {
  const dir = await tempDir(t);
  const fake = new FakeRuntime();
  const daemon = await startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime: async () => fake });
  t.after(() => daemon.stop());
  const runtime = await Runtime.connect({ root: t.dir, socketPath: daemon.socketPath, startDaemon: false });
  t.after(() => runtime[Symbol.asyncDispose]());
  const networks: readonly NetworkConfig[] = [
    {
      mode: "netns",
      path: "/run/netns/theirs",
      model: "none",
      rates: { inBytesPerSecond: 100_000, outBytesPerSecond: 200_000 },
    },
    { mode: "bridge", links: ["db", "cache:c"], policy: { default: "closed", allow: ["a.example:443"] } },
  ];
  for (const network of networks) {
    const { id } = await runtime.sandboxes.create({ image: "fake", network, container: { command: ["wait"] } });
    const { ports: _, policy, ...arrived } = fake.find(id).config.network ?? {};
    const { policy: asked, ...wanted } = network;
    assert.deepEqual(JSON.parse(JSON.stringify(arrived)), JSON.parse(JSON.stringify(wanted)));
    assert.deepEqual(policy?.allow, asked?.allow);
  }

  const sandbox = await runtime.sandboxes.create({ image: "fake", container: { command: ["wait"] } });
  await sandbox.network.addInterface("eth1");
  const [only] = await sandbox.network.interfaces();
  assert.deepEqual(only, {
    name: "eth1",
    macAddress: "02:00:00:00:00:01",
    mtu: 1500,
    up: true,
    addresses: ["10.0.0.2/24"],
    source: "eth1",
  });
  const routes = [
    { interfaceName: "eth1", destination: "10.0.0.0/8" },
    { interfaceName: "eth1", destination: "default", gateway: "10.0.0.1" },
  ];
  await sandbox.network.setRoutes(routes);
  assert.deepEqual(await sandbox.network.routes(), routes);
  assert.equal(await sandbox.network.refresh(), true);
  await sandbox.network.removeInterface("eth1");
  await assert.rejects(sandbox.network.removeInterface("eth1"), { reason: "INTERFACE_NOT_FOUND" });
});
