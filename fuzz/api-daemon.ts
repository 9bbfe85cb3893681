/** The daemon under the fuzzer of the API, in a process of its own: the daemon's own, over a runtime of fakes. `api-daemon.ts DIRECTORY` */
import { silentLog } from "../src/base/index.ts";
import { startDaemon } from "../src/sdk/index.ts";
import { FakeRuntime } from "../test/support/fake-runtime.ts";

const [dir = ""] = process.argv.slice(2);
const fake = new FakeRuntime();
const config = { image: "fake", name: "demo", container: { command: ["wait"] } };
let kept = await fake.sandboxes.create(config);
await startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime: async () => fake });
// What cases have made would be growth, and is none of the daemon's.
setInterval(async () => {
  for (const id of fake.all.keys()) if (id !== kept.id) fake.all.delete(id);
  for (const id of fake.checkpoints.all.keys()) fake.checkpoints.all.delete(id);
  fake.events.length = 0;
  if (fake.all.size === 0) kept = await fake.sandboxes.create(config);
  const sandbox = fake.all.get(kept.id);
  if (sandbox !== undefined) Object.assign(sandbox, { name: "demo", annotations: {}, devices: [], deviceRequests: [] });
}, 200);
// The fuzzer has gone.
process.once("disconnect", () => process.exit());
process.send?.("ready");
process.on("message", () => {
  globalThis.gc?.();
  process.send?.(process.memoryUsage().heapUsed);
});
