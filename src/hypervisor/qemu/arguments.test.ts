import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { BelljarError, vmmLimits } from "../../base/index.ts";
import type { DiskConfig } from "../interface.ts";
import { type CommandLine, qemuArguments } from "./arguments.ts";
import { placeDisks } from "./disk-arguments.ts";
import { runFiles } from "./run-files.ts";

const layer: DiskConfig = { serial: "layer-1", path: "/images/a,b.erofs", format: "raw", readOnly: true };
const own: DiskConfig = { serial: "own", path: "/sandboxes/x/disk.qcow2", format: "qcow2", readOnly: false };

const tcg: CommandLine = {
  id: "0123456789ab",
  files: runFiles("/run/belljar/0123456789ab"),
  acceleration: "tcg",
  memoryMib: 256,
  cpus: 2,
  boot: { kernelPath: "/guest/kernel", initrdPath: "/guest/initrd", kernelArguments: ["console=ttyS0", "quiet"] },
  disks: placeDisks([layer, own]),
  incoming: false,
};

for (const [name, line] of Object.entries({
  tcg,
  kvm: { ...tcg, acceleration: "kvm", disks: [], boot: { kernelPath: "/guest/kernel", kernelArguments: [] } } as const,
  load: { ...tcg, incoming: true },
})) {
  test(`the command line is what the golden file says: ${name}`, async () => {
    const golden = await readFile(join(import.meta.dirname, "golden", `${name}.txt`), "utf8");
    assert.equal(`${qemuArguments(line).join("\n")}\n`, golden);
  });
}

test("a comma in a path stays in its argument", () => {
  const args = qemuArguments({ ...tcg, files: runFiles("/run/a,b/x") });
  assert.ok(args.includes("socket,id=agent,path=/run/a,,b/x/agent.sock,server=on,wait=off"));
  assert.ok(args.includes("/run/a,b/x/vmm.pid"));
});

test("a NUL in a path is refused", () => {
  const boot = { ...tcg.boot, kernelPath: "/kernel\0,x" };
  assert.throws(() => qemuArguments({ ...tcg, boot }), reason("INVALID_ARGUMENT"));
});

test("a run directory too long for sockets is refused with a remedy", () => {
  assert.throws(
    () => runFiles(`/run/${"x".repeat(100)}`),
    (error: unknown) => {
      assert.ok(error instanceof BelljarError);
      assert.match(error.remedy ?? "", /BELLJAR_RUN/);
      return error.reason === "INVALID_ARGUMENT";
    },
  );
});

test("disks get the lowest free slots, and keep those that they say", () => {
  const present = placeDisks([
    { ...layer, serial: "a" },
    { ...layer, serial: "b", slot: 2 },
  ]);
  assert.deepEqual(
    present.map((disk) => disk.slot),
    [0, 2],
  );
  const more = placeDisks(
    [
      { ...layer, serial: "c" },
      { ...layer, serial: "d" },
    ],
    present,
  );
  assert.deepEqual(
    more.map((disk) => disk.slot),
    [1, 3],
  );
});

test("a slot number becomes a target and a unit of at most 256", () => {
  const disks = placeDisks(Array.from({ length: 300 }, (_, index) => ({ ...layer, serial: `d${index}` })));
  const addresses = qemuArguments({ ...tcg, disks })
    .filter((arg) => arg.includes('"scsi-hd"'))
    .map((arg) => JSON.parse(arg))
    .map((device) => `${device["scsi-id"]}:${device["lun"]}`);
  assert.equal(addresses[255], "0:255");
  assert.equal(addresses[256], "1:0");
  assert.equal(new Set(addresses).size, 300);
});

for (const [what, disks] of Object.entries({
  "a repeated serial number": [layer, layer],
  "a serial number with a quote": [{ ...layer, serial: 'a"' }],
  "a serial number too long": [{ ...layer, serial: "a".repeat(21) }],
  "an empty serial number": [{ ...layer, serial: "" }],
  "a slot taken twice": [
    { ...layer, slot: 1 },
    { ...own, slot: 1 },
  ],
  "a slot that is none": [{ ...layer, slot: 1.5 }],
  "too many disks": Array.from({ length: vmmLimits.disksMax + 1 }, (_, index) => ({ ...layer, serial: `d${index}` })),
})) {
  test(`refused: ${what}`, () => {
    assert.throws(() => placeDisks(disks), reason("INVALID_ARGUMENT"));
  });
}

function reason(expected: string): (error: unknown) => boolean {
  return (error) => error instanceof BelljarError && error.reason === expected;
}
