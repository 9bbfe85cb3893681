import assert from "node:assert/strict";
import { test } from "node:test";
import { findPlugged, type PluggedDeps, withContainerDevices } from "./plugged-devices.ts";

const loaded: string[][] = [];
const deps: PluggedDeps = {
  runTool: async (_tool, args) => {
    loaded.push([...args]);
  },
  sysDir: "/sys",
  devDir: "/dev",
};
const nothing = { modules: [], unused: false, noNodes: false };

test("a container gets the guest's own device of the same path, with the access that it is given", async () => {
  const spec = { linux: { resources: { devices: [{ allow: false, access: "rwm" }] } } };
  assert.deepEqual(await withContainerDevices(deps, spec, [{ path: "/dev/null", access: "rw" }]), {
    linux: {
      devices: [{ path: "/dev/null", type: "c", major: 1, minor: 3, fileMode: 0o660, uid: 0, gid: 0 }],
      resources: {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: 1, minor: 3, access: "rw" },
        ],
      },
    },
  });
  assert.equal(await withContainerDevices(deps, spec, []), spec);
});

test("what the guest has not, or nobody may have, is refused", async () => {
  for (const path of ["/dev/absent", "/dev/../etc/passwd", "/dev", "/etc/passwd", "/dev/vport1p1"]) {
    await assert.rejects(
      withContainerDevices(deps, {}, [{ path, access: "rwm" }]),
      { reason: "DEVICE_NOT_FOUND" },
      path,
    );
  }
});

test("modules are loaded first, and only what can be a module's name", async () => {
  loaded.length = 0;
  await assert.rejects(findPlugged(deps, { ...nothing, modules: ["virtio_blk"] }), { reason: "INVALID_ARGUMENT" });
  assert.deepEqual(loaded, [["modprobe", "-a", "virtio_blk"]]);
  const option = { ...nothing, serial: "a", modules: ["-r"] };
  await assert.rejects(findPlugged(deps, option), { reason: "INVALID_ARGUMENT" });
  assert.equal(loaded.length, 1);
});
