/** What is said over QMP when a guest does not go along, and in which order the functions of a PCI device come and go. */
import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../../test/support/harness.ts";
import { parseJson } from "../../base/index.ts";
import { diskParts } from "./disk-arguments.ts";
import { plug, unplug } from "./hotplug.ts";
import { QmpClient, tryConnect } from "./qmp.ts";
import { vfioParts } from "./vfio-arguments.ts";

interface Scene {
  readonly qmp: QmpClient;
  /** Commands as they came, with what they are about. */
  readonly said: string[];
  send(message: unknown): void;
}

/**
 * A QEMU that takes everything; `onRemoval` is told which device is to go, and how often that has been said. The first so many requests to
 * remove a disk's file are refused.
 */
async function scene(
  t: TestScope,
  onRemoval: (id: string, times: number, scene: Scene) => void,
  refused = 0,
): Promise<Scene> {
  const path = join(await tempDir(t), "qmp");
  const connected = Promise.withResolvers<Socket>();
  const server = createServer((socket) => {
    connected.resolve(socket.on("error", () => {}));
  });
  t.after(() => new Promise((resolve) => server.close(resolve)));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = await tryConnect(path);
  assert.ok(socket !== undefined);
  const other = await connected.promise;
  const made: Scene = {
    qmp: new QmpClient(socket),
    said: [],
    send: (message) => void other.write(`${JSON.stringify(message)}\r\n`),
  };
  t.after(() => made.qmp.close());
  let partial = "";
  other.on("data", (chunk: Buffer) => {
    const lines = (partial + chunk.toString()).split("\n");
    partial = lines.pop() ?? "";
    for (const line of lines) {
      const field = parseJson(line, "command", "INTERNAL");
      const command = field.field("execute").string();
      const about =
        field
          .field("arguments")
          .field("id")
          .optional((id) => id.string()) ?? "";
      const where = field
        .field("arguments")
        .field("addr")
        .optional((addr) => addr.string());
      made.said.push([command, about, where].filter((word) => (word ?? "") !== "").join(" "));
      const id = field.field("id").integer();
      const isRefused = command === "blockdev-del" && made.said.filter((each) => each === command).length <= refused;
      if (isRefused) made.send({ error: { class: "GenericError", desc: "Node node-a is in use" }, id });
      else if (command === "query-named-block-nodes")
        made.send({ return: [{ "node-name": disk.backEnds[0]?.id }], id });
      else made.send({ return: {}, id });
      if (command !== "device_del") continue;
      onRemoval(about, made.said.filter((each) => each === `device_del ${about}`).length, made);
    }
  });
  return made;
}

const gone = (device: string): unknown => ({ event: "DEVICE_DELETED", data: { device, path: `/machine/${device}` } });
const disk = diskParts({ serial: "a", path: "/disk", format: "raw", readOnly: true, slot: 0 });

test("a guest that lets go of nothing: what was plugged stays, and its file open, when the time is over", async (t) => {
  const { qmp, said } = await scene(t, () => {});
  await plug(qmp, disk);
  const error = { reason: "DEADLINE_EXCEEDED", message: /the guest did not let go of the disk a within 200 ms/ };
  await assert.rejects(unplug(qmp, disk, 200), error);
  assert.deepEqual(said, ["blockdev-add", "device_add disk-a", "device_del disk-a"]);
});

test("a guest that refuses to let go is told of at once", async (t) => {
  const { qmp, said } = await scene(t, (device, _times, { send }) => {
    send({ event: "DEVICE_UNPLUG_GUEST_ERROR", data: { device: "another", path: "/" } });
    send({ event: "DEVICE_UNPLUG_GUEST_ERROR", data: { device, path: "/" } });
  });
  await assert.rejects(unplug(qmp, disk, 60_000), {
    reason: "DEVICE_REFUSED",
    message: /refused to let go of the disk a/,
  });
  assert.deepEqual(said, ["device_del disk-a"]);
});

test("a guest that does not hear it the first time is told again", async (t) => {
  const { qmp, said } = await scene(t, (device, times, { send }) => {
    if (times === 2) send(gone(device));
  });
  await unplug(qmp, disk, 60_000);
  assert.deepEqual(said, ["device_del disk-a", "device_del disk-a", "blockdev-del"]);
});

test("a disk's file that QEMU has not let go of yet is asked for again", async (t) => {
  const { qmp, said } = await scene(t, (device, _times, { send }) => send(gone(device)), 2);
  await unplug(qmp, disk, 60_000);
  assert.deepEqual(
    said.filter((each) => each !== "query-named-block-nodes"),
    ["device_del disk-a", "blockdev-del", "blockdev-del", "blockdev-del"],
  );
});

test("the functions of a PCI device come with the first one last, and go together", async (t) => {
  const { qmp, said } = await scene(t, (device, _times, { send }) => {
    // With function 0 the guest lets go of all of them.
    if (device.endsWith("-0")) for (const each of ["dev-g-0", "dev-g-1", "dev-g-2"]) send(gone(each));
  });
  const hostAddresses = ["0000:03:00.0", "0000:03:00.1", "0000:04:00.0"];
  const parts = vfioParts({ kind: "vfio", id: "g", hostAddresses, port: 3 });
  await plug(qmp, parts);
  assert.deepEqual(said, ["device_add dev-g-2 0.2", "device_add dev-g-1 0.1", "device_add dev-g-0 0.0"]);
  said.length = 0;
  await unplug(qmp, parts, 60_000);
  assert.equal(said[0], "device_del dev-g-0");
});
