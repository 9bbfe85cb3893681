import assert from "node:assert/strict";
import { test } from "node:test";
import type { VmConfig } from "../interface.ts";
import { traits } from "./compatibility.ts";

const info = { name: "QEMU", version: "7.2.0", path: "/usr/bin/qemu-system-x86_64" };
const config: VmConfig = {
  id: "0123456789ab",
  runDir: "/run/belljar/0123456789ab",
  acceleration: "tcg",
  memoryMib: 256,
  cpus: 1,
  boot: { kernelPath: "/guest/kernel", initrdPath: "/guest/initrd", kernelArguments: ["quiet"] },
  disks: [{ serial: "root", path: "/guest/root", format: "raw", readOnly: true }],
};

/**
 * Another one refuses every checkpoint, and every sandbox that sleeps, of those who have this version. Whoever changes the machine in
 * such a way says so in CHANGELOG.md, and here.
 */
const COMMAND_LINE = "3fa4b14683775b772467a29536f86f6226bde7468f1f7c69e950376bde25adbf";

test("the machine is the one that saved guests were saved in", async () => {
  assert.equal((await traits(info, config)).commandLine, COMMAND_LINE);
});

test("names and paths are no part of a machine, its size and devices are", async () => {
  const [disk] = config.disks;
  assert.ok(disk !== undefined);
  const same: VmConfig = { ...config, id: "ba9876543210", runDir: "/r", disks: [{ ...disk, path: "/elsewhere" }] };
  assert.equal((await traits(info, same)).commandLine, COMMAND_LINE);
  const others: readonly VmConfig[] = [
    { ...config, memoryMib: 512 },
    { ...config, cpus: 2 },
    { ...config, disks: [] },
    { ...config, acceleration: "kvm" },
    { ...config, wakePort: true },
  ];
  for (const other of others) assert.notEqual((await traits(info, other)).commandLine, COMMAND_LINE);
});
