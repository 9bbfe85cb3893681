import assert from "node:assert/strict";
import { test } from "node:test";
import { deviceRequest, parseContainerDevice } from "./device-options.ts";

test("--device: as docker has it", () => {
  const parse = (text: string): object => parseContainerDevice(text, "/here");
  assert.deepEqual(parse("/dev/sdb"), { path: "/dev/sdb", containerPath: undefined, access: undefined });
  assert.deepEqual(parse("a.img:/dev/x"), { path: "/here/a.img", containerPath: "/dev/x", access: undefined });
  assert.deepEqual(parse("/dev/sdb:r"), { path: "/dev/sdb", containerPath: undefined, access: "r" });
  assert.deepEqual(parse("/a:/dev/x:rw"), { path: "/a", containerPath: "/dev/x", access: "rw" });
  for (const wrong of ["", ":", "/a:", "/a:/b:x", "/a:/b:rw:z"]) {
    assert.throws(() => parse(wrong), { reason: "INVALID_ARGUMENT" }, wrong);
  }
});

test("device add: a path alone is a disk; each kind says what it needs", () => {
  assert.deepEqual(deviceRequest("a", { driver: "virtio-blk", direct: true, readBps: "1m", writeIops: "5" }, "/here"), {
    kind: "block",
    path: "/here/a",
    readOnly: undefined,
    format: undefined,
    driver: "virtio-blk",
    cache: { direct: true, noFlush: false },
    rates: { readBytesPerSecond: 1_048_576, writesPerSecond: 5 },
  });
  assert.deepEqual(deviceRequest(undefined, { kind: "vhost-user-net", socket: "s" }, "/here"), {
    kind: "vhost-user-net",
    socketPath: "/here/s",
    macAddress: undefined,
  });
  for (const kind of ["block", "generic", "vhost-user-scsi", "vhost-user-net", "vhost-user-fs"] as const) {
    assert.throws(() => deviceRequest(undefined, { kind }, "/"), { reason: "INVALID_ARGUMENT" }, kind);
  }
});
