import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError } from "../../base/index.ts";
import { controlFirst, isVfioSource, parseVfioSource } from "./source.ts";

test("addresses and groups are understood in every usual spelling", () => {
  for (const text of ["0000:3B:00.1", "3b:00.1", "/sys/bus/pci/devices/0000:3b:00.1", " 3b:00.1\n"]) {
    assert.deepEqual(parseVfioSource(text), { kind: "address", address: "0000:3b:00.1" }, text);
  }
  assert.deepEqual(parseVfioSource("10000:01:1f.7"), { kind: "address", address: "10000:01:1f.7" });
  assert.deepEqual(parseVfioSource("/dev/vfio/12"), { kind: "group", group: 12 });
  assert.deepEqual(parseVfioSource("/dev/vfio/vfio"), { kind: "control" });
});

test("what is no whole PCI device is refused, saying why", () => {
  const reasonOf = (text: string): string => {
    try {
      parseVfioSource(text);
    } catch (error) {
      return BelljarError.from(error).reason;
    }
    return "none";
  };
  for (const text of [
    "",
    "3b:20.0",
    "3b:00.8",
    "3b:00",
    "/dev/vfio/",
    "/dev/vfio/../kvm",
    "0000:3b:00.1;",
    "../0000:3b:00.1",
  ]) {
    assert.equal(reasonOf(text), "INVALID_ARGUMENT", text);
  }
  const mediated = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
  for (const text of [mediated, `/sys/bus/mdev/devices/${mediated}`, "/dev/vfio/devices/vfio0"]) {
    assert.equal(reasonOf(text), "DEVICE_UNSUPPORTED", text);
  }
});

test("what looks like one goes this way, right or wrong", () => {
  for (const text of ["3b:00.1", "/dev/vfio/12", "/dev/vfio/nonsense"]) assert.ok(isVfioSource(text), text);
  for (const text of ["/dev/sda", "/dev/null", "busybox", "/var/lib/disk.raw"]) assert.ok(!isVfioSource(text), text);
});

test("the control device comes first, the others stay in their order", () => {
  const sorted = controlFirst(["/dev/vfio/7", "/dev/vfio/vfio", "/dev/vfio/3"], (path) => path);
  assert.deepEqual(sorted, ["/dev/vfio/vfio", "/dev/vfio/7", "/dev/vfio/3"]);
});
