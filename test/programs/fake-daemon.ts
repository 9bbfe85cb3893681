/** `fake-daemon.ts RUN-DIR SANDBOX-ID TOTAL`: a daemon over the fake runtime, to be killed; its successor has the same sandbox. */
import { createLog } from "../../src/base/index.ts";
import { startDaemon, stopOnSignals } from "../../src/daemon/index.ts";
import { FakeRuntime, FakeSandbox } from "../support/fake-runtime.ts";

const [runDir, id, total] = process.argv.slice(2);
if (runDir === undefined || id === undefined || total === undefined) {
  process.stderr.write("usage: fake-daemon.ts RUN-DIR SANDBOX-ID TOTAL\n");
  process.exit(2);
}
const runtime = new FakeRuntime();
const sandbox = new FakeSandbox({ image: "fake", container: { command: ["pattern", total] } }, id);
sandbox.move("running");
runtime.all.set(id, sandbox);
const log = createLog({ level: "warn", json: false, write: (line) => process.stderr.write(line) });
const daemon = await startDaemon({ root: runDir, runDir, log, openRuntime: async () => runtime });
using _signals = stopOnSignals(daemon);
process.stdout.write("ready\n");
await daemon.stopped;
