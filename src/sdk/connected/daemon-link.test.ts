import assert from "node:assert/strict";
import net from "node:net";
import { join } from "node:path";
import { test } from "../../../test/support/harness.ts";
import { DaemonLink } from "./daemon-link.ts";

test("a call that every daemon dies of is given up in the end, and says how often it was made", async (t) => {
  const socketPath = join(t.dir, "dying.sock");
  let connections = 0;
  const server = net.createServer((socket) => {
    connections += 1;
    socket.on("error", () => {});
    socket.once("data", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  t.after(() => new Promise((resolve) => server.close(resolve)));
  const link = new DaemonLink({ socketPath, repeatTimeoutMs: 100 });
  t.after(() => link.close());
  const call = link.call({ what: "its status was read", repeatable: true }, ({ daemon }, options) =>
    daemon.getDaemon({}, options),
  );
  await assert.rejects(call, (error) => {
    assert.match(String(error), /each daemon died while its status was read, \d+ times/);
    assert.deepEqual(Reflect.get(Object(error), "reason"), "DAEMON_LOST");
    return true;
  });
  assert.ok(connections > 1);
});
