import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeField } from "../base/index.ts";
import { decodeDeviceConfig, decodeDiskConfig } from "../hypervisor/index.ts";
import { type DeviceState, decodeDeviceState } from "./device-state.ts";
import type { DeviceRequest } from "./kinds.ts";

const decoders = { disk: decodeDiskConfig, device: decodeDeviceConfig };

const configs: readonly DeviceRequest[] = [
  {
    kind: "block",
    path: "/a",
    readOnly: true,
    isHostDevice: true,
    format: "raw",
    driver: "virtio-blk",
    cache: { direct: true, noFlush: false },
    rates: { readBytesPerSecond: 1 },
  },
  { kind: "generic", path: "/dev/net/tun" },
  { kind: "vhost-user-blk", path: "/b", readOnly: false, format: "qcow2", isHostDevice: false },
  { kind: "vhost-user-blk", socketPath: "/b" },
  { kind: "vhost-user-scsi", socketPath: "/s" },
  { kind: "vhost-user-net", socketPath: "/n", macAddress: "02:00:00:00:00:01" },
  { kind: "vhost-user-fs", tag: "t", directory: "/d", readOnly: true, cache: "none" },
];

const state: DeviceState = {
  id: "d-0123456789abcdef",
  key: "file:/a",
  config: { kind: "generic", path: "/dev/fuse" },
  isContainers: false,
  phase: "attached",
  references: ["sandbox", "0123456789ab"],
  attachments: ["sandbox"],
  disk: { serial: "d-0123456789abcdef", path: "/a", format: "raw", readOnly: true, slot: 3 },
  device: { kind: "vhost-user-fs", id: "d-0123456789abcdef", socketPath: "/s", tag: "t", port: 1 },
  backEnd: { pid: 1, startTicks: 2, bootId: "b" },
  nodes: [{ name: "sdb", type: "block", major: 8, minor: 16 }],
};

for (const config of configs) {
  test(`a device is read back as it was written: ${JSON.stringify(config)}`, () => {
    const written: unknown = JSON.parse(JSON.stringify({ ...state, config }));
    const read = decodeDeviceState(decodeField(written, "device", "STATE_CORRUPT"), decoders);
    assert.deepEqual(JSON.parse(JSON.stringify(read)), written);
  });
}

for (const [what, change] of Object.entries({
  "an unknown kind": { config: { kind: "other" } },
  "a path outside of /dev": { config: { kind: "generic", path: "/etc/passwd" } },
  "an id that is none": { id: "../x" },
  "an unknown phase": { phase: "lost" },
  "holders that are no list": { references: "sandbox" },
  "a node without numbers": { nodes: [{ name: "sdb", type: "block" }] },
})) {
  test(`what is not a possible device is damage: ${what}`, () => {
    const field = decodeField({ ...state, ...change }, "device", "STATE_CORRUPT");
    assert.throws(() => decodeDeviceState(field, decoders), { reason: "STATE_CORRUPT" });
  });
}
