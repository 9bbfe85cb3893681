import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { type TestContext, test } from "node:test";
import { BelljarError, silentLog } from "../base/index.ts";
import { acquireLock } from "../store/index.ts";
import { openImageStore } from "./image-store.ts";
import { asRoot, scratch } from "./layer-fixture.ts";
import type { LayerUse } from "./layer-use.ts";
import type { ImageStore } from "./types.ts";

/** A store with images of one layer each, whose content is the image's name. */
class World {
  readonly dir: string;
  use: LayerUse = { containers: [], unreadable: [] };

  constructor(dir: string) {
    this.dir = join(dir, "images");
  }

  open(): Promise<ImageStore> {
    return openImageStore({ dir: this.dir, log: silentLog, layerUse: async () => this.use });
  }

  static async create(t: TestContext, names: readonly string[]): Promise<{ world: World; store: ImageStore }> {
    const dir = await scratch(t);
    const world = new World(dir);
    const store = await world.open();
    for (const name of names) {
      await mkdir(join(dir, "rootfs", name), { recursive: true });
      await writeFile(join(dir, "rootfs", name, "name"), name);
      await store.import(join(dir, "rootfs", name), { name, kind: "rootfs" });
    }
    return { world, store };
  }

  /** A container of the sandbox has these images' layers. */
  async useImage(store: ImageStore, sandbox: string, name: string): Promise<readonly string[]> {
    const layerFiles = (await store.resolve(name)).layers.map(({ path }) => basename(path));
    this.use = { ...this.use, containers: [...this.use.containers, { sandbox, layerFiles }] };
    return layerFiles;
  }

  layers(): Promise<string[]> {
    return readdir(join(this.dir, "layers"));
  }
}

test("layers that a container uses stay, whatever becomes of the image's name", asRoot, async (t) => {
  const { world, store } = await World.create(t, ["a", "b"]);
  const layers = await world.useImage(store, "box", "a");
  await assert.rejects(store.remove("a"), (error) => {
    assert.ok(error instanceof BelljarError);
    assert.equal(error.reason, "IMAGE_IN_USE");
    assert.deepEqual(error.facts["sandboxes"], ["box"]);
    return true;
  });
  await store.remove("b");
  assert.deepEqual(await world.layers(), layers, "nobody needs the layer of b");
  await store.remove("a", { force: true });
  assert.deepEqual(await world.layers(), layers, "the container needs that of a");
  assert.equal((await store.collectGarbage()).layersRemoved, 0);
  world.use = { containers: [], unreadable: [] };
  const report = await store.collectGarbage();
  assert.equal(report.layersRemoved, 1);
  assert.ok(report.bytesFreed > 0);
  assert.deepEqual(await world.layers(), []);
  assert.deepEqual(await readdir(join(world.dir, "blobs/sha256")), []);
});

test("of an image with two names one may go while it is used", asRoot, async (t) => {
  const { world, store } = await World.create(t, ["a"]);
  await world.useImage(store, "box", "a");
  await store.import(join(world.dir, "../rootfs/a"), { name: "again", kind: "rootfs" });
  await store.remove("again");
  await assert.rejects(store.remove("a"), { reason: "IMAGE_IN_USE" });
});

test("while a sandbox cannot be read nothing is removed", asRoot, async (t) => {
  const { world, store } = await World.create(t, ["a", "b"]);
  world.use = { containers: [], unreadable: ["torn"] };
  await store.remove("a");
  assert.deepEqual((await store.collectGarbage({ unusedImages: true })).keptFor, ["torn"]);
  assert.equal((await world.layers()).length, 2);
  assert.deepEqual(
    (await store.list()).map(({ name }) => name),
    ["b:latest"],
  );
});

test("images that no container uses go when that is asked for", asRoot, async (t) => {
  const { world, store } = await World.create(t, ["a", "b", "c"]);
  const layers = await world.useImage(store, "box", "b");
  const report = await store.collectGarbage({ unusedImages: true });
  assert.deepEqual(report.imagesRemoved, ["a:latest", "c:latest"]);
  assert.deepEqual(await world.layers(), layers);
});

test("an image that is held stays until it is let go, and so does what is being added", asRoot, async (t) => {
  const { world, store } = await World.create(t, ["a"]);
  const other = await world.open();
  const held = await store.hold("a");
  await other.remove("a");
  assert.equal((await world.layers()).length, 1);
  await held[Symbol.asyncDispose]();
  assert.equal((await other.collectGarbage()).layersRemoved, 1);
  await assert.rejects(store.hold("a"), { reason: "IMAGE_NOT_FOUND" });
  await store.import(join(world.dir, "../rootfs/a"), { name: "b", kind: "rootfs" });
  // An import holds this lock while it runs, in whatever process.
  await using _adding = await acquireLock(join(world.dir, "use.lock"), { mode: "shared", timeoutMs: 0, what: "it" });
  await other.remove("b");
  assert.equal((await world.layers()).length, 1);
});

test("a store that other roots use loses no layer", asRoot, async (t) => {
  const { world } = await World.create(t, ["a"]);
  const shared = await openImageStore({ dir: world.dir, log: silentLog, layerUse: "unknown" });
  await shared.remove("a");
  await shared.collectGarbage({ unusedImages: true });
  assert.equal((await world.layers()).length, 1);
});

/** Ends itself with SIGKILL at a step, if there are so many. */
const PROGRAM = `
  const [base, images, dir, keep, at] = process.argv.slice(1);
  const { STEP_CHANNEL, silentLog } = await import(base);
  const { subscribe } = await import("node:diagnostics_channel");
  const { openImageStore } = await import(images);
  const layerUse = async () => ({ containers: [{ sandbox: "box", layerFiles: [keep] }], unreadable: [] });
  const store = await openImageStore({ dir, log: silentLog, layerUse });
  let steps = 0;
  subscribe(STEP_CHANNEL, () => {
    if (String(steps) === at) process.kill(process.pid, "SIGKILL");
    steps += 1;
  });
  await store.collectGarbage({ unusedImages: true });`;

test(
  "a removal that is killed at any step has lost nothing that is used, and the next one finishes it",
  asRoot,
  async (t) => {
    const { world, store } = await World.create(t, ["a", "b", "c"]);
    const [keep = ""] = await world.useImage(store, "box", "b");
    await cp(world.dir, `${world.dir}-before`, { recursive: true });
    for (let at = 0, ended = false; !ended; at += 1) {
      assert.ok(at < 100, "it comes to an end");
      await rm(world.dir, { recursive: true });
      await cp(`${world.dir}-before`, world.dir, { recursive: true });
      const modules = ["../base/index.ts", "./index.ts"].map((path) => new URL(path, import.meta.url).href);
      const child = spawn(
        process.execPath,
        ["--input-type=module", "--eval", PROGRAM, ...modules, world.dir, keep, String(at)],
        { stdio: ["ignore", "ignore", "inherit"] },
      );
      const [code] = await once(child, "close");
      ended = code === 0;
      const there = await world.open();
      for (const { name } of await there.list()) await there.inspect(name);
      assert.ok((await world.layers()).includes(keep));
      await there.collectGarbage();
      const named = (await there.list()).map(({ name }) => name);
      assert.ok(named.includes("b:latest"));
      assert.equal((await world.layers()).length, named.length, `killed at step ${at}`);
    }
  },
);
