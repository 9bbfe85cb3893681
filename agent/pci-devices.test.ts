import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { findDeviceNodes, withDeviceNodes } from "./pci-devices.ts";

const PORT = "0000:00:10.3";

interface Sys {
  readonly dir: string;
  /** A device below the root bus; with numbers, one that has a node. */
  add(
    path: string,
    node?: { readonly name: string; readonly numbers: string; readonly subsystem: string },
  ): Promise<void>;
}

async function sys(t: TestContext): Promise<Sys> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-pci-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const add: Sys["add"] = async (path, node) => {
    const device = join(dir, "devices/pci0000:00", path);
    await mkdir(join(device, "power"), { recursive: true });
    if (node === undefined) return;
    await mkdir(join(dir, "class", node.subsystem), { recursive: true });
    await symlink(join(dir, "class", node.subsystem), join(device, "subsystem"));
    await writeFile(join(device, "uevent"), `MAJOR=${node.numbers.split(":")[0]}\nDEVNAME=${node.name}\n`);
    await writeFile(join(device, "dev"), `${node.numbers}\n`);
  };
  return { dir, add };
}

test("a device is found by its ports, whatever numbers its buses have, and gives the nodes of its drivers", async (t) => {
  const { dir, add } = await sys(t);
  await add(`${PORT}/0000:07:00.0/nvme/nvme0`, { name: "nvme0", numbers: "247:0", subsystem: "nvme" });
  await add(`${PORT}/0000:07:00.0/nvme/nvme0/nvme0n1`, { name: "nvme0n1", numbers: "259:0", subsystem: "block" });
  await add(`${PORT}/0000:07:00.1/drm/card0`, { name: "dri/card0", numbers: "226:0", subsystem: "drm" });
  await add("0000:00:10.4/0000:08:00.0/nvme/nvme1", { name: "nvme1", numbers: "247:1", subsystem: "nvme" });
  assert.deepEqual(await findDeviceNodes(dir, [[PORT, "00.0"]]), [
    { name: "nvme0", type: "c", major: 247, minor: 0 },
    { name: "nvme0n1", type: "b", major: 259, minor: 0 },
  ]);
  const both = await findDeviceNodes(dir, [
    [PORT, "00.0"],
    [PORT, "00.1"],
  ]);
  assert.deepEqual(
    both.map(({ name }) => name),
    ["nvme0", "nvme0n1", "dri/card0"],
  );
});

test("a device behind a switch is found through its ports, and a bridge does not give what is behind it", async (t) => {
  const { dir, add } = await sys(t);
  const below = "0000:00:18.0/0000:09:00.0/0000:0a:01.0/0000:0c:00.0";
  await add(`${below}/nvme/nvme0`, { name: "nvme0", numbers: "247:0", subsystem: "nvme" });
  const found = await findDeviceNodes(dir, [["0000:00:18.0", "00.0", "01.0", "00.0"]]);
  assert.deepEqual(
    found.map(({ name }) => name),
    ["nvme0"],
  );
  assert.deepEqual(await findDeviceNodes(dir, [["0000:00:18.0", "00.0", "01.0"]]), []);
});

test("a device that is plugged this moment is waited for, with all its nodes", async (t) => {
  const { dir, add } = await sys(t);
  const found = findDeviceNodes(dir, [[PORT, "00.0"]]);
  await sleep(50);
  await add(`${PORT}/0000:01:00.0/nvme/nvme0`, { name: "nvme0", numbers: "247:0", subsystem: "nvme" });
  await sleep(150);
  await add(`${PORT}/0000:01:00.0/nvme/nvme0/nvme0n1`, { name: "nvme0n1", numbers: "259:0", subsystem: "block" });
  assert.equal((await found).length, 2);
});

test("a malformed place is refused, and a name that leads out of /dev is no node", async (t) => {
  const { dir, add } = await sys(t);
  for (const path of [[], ["10.3"], [PORT, "../.."], [PORT, "00.8"], [PORT, ...Array<string>(20).fill("00.0")]]) {
    await assert.rejects(findDeviceNodes(dir, [path]), { reason: "INVALID_ARGUMENT" });
  }
  await add(`${PORT}/0000:01:00.0/misc/x`, { name: "../etc/x", numbers: "10:1", subsystem: "misc" });
  assert.deepEqual(await findDeviceNodes(dir, [[PORT, "00.0"]]), []);
});

test("nodes are added to those that the configuration has, with leave to open them", () => {
  const spec = { linux: { devices: [{ path: "/dev/x" }], resources: { devices: [{ allow: false }] } } };
  const node = { name: "nvme0n1", type: "b", major: 259, minor: 0 } as const;
  assert.deepEqual(withDeviceNodes(spec, [node]), {
    linux: {
      devices: [{ path: "/dev/x" }, { path: "/dev/nvme0n1", type: "b", major: 259, minor: 0 }],
      resources: { devices: [{ allow: false }, { allow: true, type: "b", major: 259, minor: 0, access: "rwm" }] },
    },
  });
  assert.equal(withDeviceNodes(spec, []), spec);
});
