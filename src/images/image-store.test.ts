import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { gzipSync } from "node:zlib";
import { BelljarError, type ErrorReason, runTool, silentLog } from "../base/index.ts";
import { digestOf } from "./digest.ts";
import { openImageStore, prepareBuiltins } from "./image-store.ts";
import { archiveOf, asRoot, describeTree, type FixtureEntry, mounted, scratch } from "./layer-fixture.ts";
import type { ImageStore } from "./types.ts";

const INDEX = "application/vnd.oci.image.index.v1+json";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";

async function openStore(dir: string): Promise<ImageStore> {
  return await openImageStore({ dir: join(dir, "images"), log: silentLog });
}

/** Nothing of an import that failed is left: no layer, no document, no staging directory. */
async function assertEmpty(dir: string): Promise<void> {
  for (const part of ["layers", "blobs/sha256", "staging"]) {
    assert.deepEqual(await readdir(join(dir, "images", part)), [], part);
  }
}

async function refused(work: Promise<unknown>, reason: ErrorReason, says?: RegExp): Promise<void> {
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof BelljarError, String(error));
    assert.equal(error.reason, reason, error.message);
    if (says !== undefined) assert.match(error.message, says);
    return true;
  });
}

/** An OCI layout that a test can spoil: documents as objects, blobs by digest. */
class Layout {
  readonly dir: string;
  readonly layers: Buffer[] = [];
  config: Record<string, unknown> = {
    architecture: "amd64",
    os: "linux",
    config: { Cmd: ["sh"], Env: ["A=b"], User: "7:8" },
  };

  constructor(dir: string) {
    this.dir = dir;
  }

  static async create(dir: string, layers: readonly (readonly FixtureEntry[])[]): Promise<Layout> {
    const layout = new Layout(join(dir, "layout"));
    await mkdir(join(layout.dir, "blobs/sha256"), { recursive: true });
    await writeFile(join(layout.dir, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    for (const entries of layers) layout.layers.push(await archiveOf(entries));
    return layout;
  }

  async blob(data: Buffer | object): Promise<{ digest: string; size: number }> {
    const bytes = Buffer.isBuffer(data) ? data : Buffer.from(JSON.stringify(data));
    const digest = digestOf(bytes);
    await writeFile(this.path(digest), bytes);
    return { digest, size: bytes.length };
  }

  path(digest: string): string {
    return join(this.dir, "blobs/sha256", digest.slice(7));
  }

  async writeIndex(manifests: readonly object[]): Promise<void> {
    await writeFile(join(this.dir, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
  }

  /** Writes everything; `change` spoils the manifest before it is written. */
  async write(
    change: (manifest: Record<string, unknown>) => void = () => {},
  ): Promise<{ digest: string; size: number }> {
    const diffIds = this.layers.map((layer) => digestOf(layer));
    const config = await this.blob({ rootfs: { type: "layers", diff_ids: diffIds }, ...this.config });
    const layers = [];
    for (const layer of this.layers) {
      layers.push({ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", ...(await this.blob(gzipSync(layer))) });
    }
    const manifest = {
      schemaVersion: 2,
      config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
      layers,
    };
    change(manifest);
    const written = await this.blob(manifest);
    await this.writeIndex([
      { mediaType: MANIFEST, ...written, annotations: { "org.opencontainers.image.ref.name": "v1" } },
    ]);
    return written;
  }
}

const TWO_LAYERS: readonly (readonly FixtureEntry[])[] = [
  [
    { name: "a", content: "lower" },
    { name: "b/c", content: "lower" },
  ],
  [{ name: ".wh.a" }, { name: "b/d", content: "upper" }],
];

test("an OCI layout, its archive and a docker archive give the same image", asRoot, async (t) => {
  const dir = await scratch(t);
  const layout = await Layout.create(dir, TWO_LAYERS);
  const { digest } = await layout.write();
  await runTool("tar", ["-czf", join(dir, "oci.tar.gz"), "-C", layout.dir, "."]);
  await runTool("skopeo", [
    "copy",
    "--quiet",
    `oci:${layout.dir}`,
    `docker-archive:${join(dir, "docker.tar")}:team/app:v2`,
  ]);
  const store = await openStore(dir);
  const fromLayout = await store.import(layout.dir);
  assert.equal(fromLayout.name, "layout:v1");
  assert.equal(fromLayout.digest, digest);
  const fromArchive = await store.import(join(dir, "oci.tar.gz"), { name: "archived" });
  const fromDocker = await store.import(join(dir, "docker.tar"));
  assert.equal(fromDocker.name, "team/app:v2");
  const paths = (await store.resolve("layout:v1")).layers.map((layer) => layer.path);
  for (const { name } of [fromArchive, fromDocker]) {
    assert.deepEqual(
      (await store.resolve(name)).layers.map((layer) => layer.path),
      paths,
      "layers are shared",
    );
  }
  const resolved = await store.resolve("archived");
  assert.deepEqual(
    { ...resolved.config, labels: {} },
    {
      entrypoint: [],
      cmd: ["sh"],
      env: ["A=b"],
      workingDir: "/",
      user: "7:8",
      exposedPorts: [],
      volumes: [],
      stopSignal: "",
      labels: {},
    },
  );
  await mounted(paths[0] ?? "", dir, async (root) => assert.equal(await readFile(join(root, "b/c"), "utf8"), "lower"));
  assert.deepEqual(
    (await store.list()).map((info) => info.name),
    ["archived:latest", "layout:v1", "team/app:v2"],
  );
  await store.remove("archived");
  await store.remove("layout:v1");
  assert.equal((await readdir(join(dir, "images/layers"))).length, 2, "an image still uses the layers");
  await store.remove(fromDocker.digest);
  await assertEmpty(dir);
  await refused(store.resolve("archived"), "IMAGE_NOT_FOUND");
});

test("a root file system, as directory and as archive in any compression", asRoot, async (t) => {
  const dir = await scratch(t);
  const rootfs = join(dir, "rootfs");
  await mkdir(join(rootfs, "etc"), { recursive: true });
  await writeFile(join(rootfs, "etc/hostname"), "x");
  await runTool("mknod", [join(rootfs, "null"), "c", "1", "3"]);
  await runTool("tar", ["-cf", join(dir, "r.tar"), "-C", rootfs, "--format=pax", "--sort=name", "."]);
  for (const [tool, suffix] of [
    ["gzip", "gz"],
    ["xz", "xz"],
    ["bzip2", "bz2"],
  ] as const) {
    await runTool("sh", ["-c", `${tool} -c < r.tar > r.tar.${suffix}`], { cwd: dir });
  }
  const store = await openStore(dir);
  const config = { cmd: ["/bin/sh"], env: ["PATH=/bin"] };
  const expected = await describeTree(rootfs);
  for (const source of ["rootfs", "r.tar", "r.tar.gz", "r.tar.xz", "r.tar.bz2"]) {
    const info = await store.import(join(dir, source), { name: "base", config });
    const image = await store.resolve(info.name);
    assert.deepEqual(image.config.cmd, config.cmd);
    await mounted(image.layers[0]?.path ?? "", dir, async (root) =>
      assert.deepEqual(await describeTree(root), expected, source),
    );
  }
});

interface BadLayout {
  readonly reason: ErrorReason;
  readonly says: RegExp;
  readonly spoil: (layout: Layout, dir: string) => Promise<void>;
}

const ZEROS = `sha256:${"0".repeat(64)}`;
const changed =
  (change: (manifest: Record<string, unknown>) => void) =>
  async (layout: Layout): Promise<void> => {
    await layout.write(change);
  };
const firstLayer = (manifest: Record<string, unknown>): Record<string, unknown> =>
  (manifest["layers"] as Record<string, unknown>[])[0] ?? {};

const BAD_LAYOUTS: Readonly<Record<string, BadLayout>> = {
  "a layer whose bytes are others": {
    reason: "IMAGE_INVALID",
    says: /digest of layer 1 of 2/,
    spoil: async (layout) => {
      await layout.write();
      const real = gzipSync(layout.layers[0] ?? Buffer.alloc(0));
      const other = gzipSync(await archiveOf([{ name: "evil", content: "x" }]));
      await writeFile(
        layout.path(digestOf(real)),
        Buffer.concat([other, Buffer.alloc(Math.max(0, real.length - other.length))]).subarray(0, real.length),
      );
    },
  },
  "a wrong diff id": {
    reason: "IMAGE_INVALID",
    says: /diff id of layer 1 of 2/,
    spoil: async (layout) => {
      layout.config = { ...layout.config, rootfs: { type: "layers", diff_ids: [ZEROS, ZEROS.replace("0", "1")] } };
      await layout.write();
    },
  },
  "a layer's size that lies": {
    reason: "IMAGE_INVALID",
    says: /bytes, not 3/,
    spoil: changed((manifest) => Object.assign(firstLayer(manifest), { size: 3 })),
  },
  "a layer that is not there": {
    reason: "IMAGE_INVALID",
    says: /no file blobs/,
    spoil: changed((manifest) => Object.assign(firstLayer(manifest), { digest: ZEROS })),
  },
  "a digest that is a path": {
    reason: "IMAGE_INVALID",
    says: /not a sha256 digest/,
    spoil: changed((manifest) => Object.assign(firstLayer(manifest), { digest: "sha256:../../../x" })),
  },
  "fewer diff ids than layers": {
    reason: "IMAGE_INVALID",
    says: /2 layers, but its configuration has 1/,
    spoil: async (layout) => {
      layout.config = { ...layout.config, rootfs: { type: "layers", diff_ids: [ZEROS] } };
      await layout.write();
    },
  },
  "an encrypted layer": {
    reason: "IMAGE_UNSUPPORTED",
    says: /encrypted/,
    spoil: changed((manifest) =>
      Object.assign(firstLayer(manifest), { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" }),
    ),
  },
  "another architecture in an index": {
    reason: "IMAGE_UNSUPPORTED",
    says: /linux\/arm64, linux\/s390x/,
    spoil: async (layout) => {
      const blob = await layout.write();
      const platform = (architecture: string): object => ({
        mediaType: MANIFEST,
        ...blob,
        platform: { os: "linux", architecture },
      });
      await layout.writeIndex([platform("arm64"), platform("s390x")]);
    },
  },
  "a configuration of another architecture": {
    reason: "IMAGE_UNSUPPORTED",
    says: /linux\/arm64/,
    spoil: async (layout) => {
      layout.config = { ...layout.config, architecture: "arm64" };
      await layout.write();
    },
  },
  "a configuration that lies about its types": {
    reason: "IMAGE_INVALID",
    says: /Cmd is not a list of strings/,
    spoil: async (layout) => {
      layout.config = { ...layout.config, config: { Cmd: { "0": "sh" } } };
      await layout.write();
    },
  },
  "a key twice": {
    reason: "IMAGE_INVALID",
    says: /key "manifests" twice/,
    spoil: async (layout) => {
      const blob = await layout.write();
      const list = JSON.stringify([{ mediaType: MANIFEST, ...blob }]);
      await writeFile(join(layout.dir, "index.json"), `{"schemaVersion":2,"manifests":${list},"manif\\u0065sts":[]}`);
    },
  },
  "a huge index": {
    reason: "IMAGE_INVALID",
    says: /limit/,
    spoil: async (layout) => {
      await layout.write();
      await truncate(join(layout.dir, "index.json"), 64 * 1024 * 1024);
    },
  },
  "indexes without end": {
    reason: "IMAGE_HOSTILE",
    says: /indexes lie within indexes/,
    spoil: async (layout) => {
      let inner = { mediaType: MANIFEST, ...(await layout.write()) };
      for (let depth = 0; depth < 10; depth += 1)
        inner = { mediaType: INDEX, ...(await layout.blob({ schemaVersion: 2, manifests: [inner] })) };
      await layout.writeIndex([inner]);
    },
  },
  "several images": {
    reason: "IMAGE_INVALID",
    says: /several images/,
    spoil: async (layout) => {
      const first = await layout.write();
      layout.config = { ...layout.config, created: "2020-01-01T00:00:00Z" };
      const second = await layout.write();
      await layout.writeIndex([first, second].map((blob) => ({ mediaType: MANIFEST, ...blob })));
    },
  },
  "a blob that is a symlink out": {
    reason: "IMAGE_HOSTILE",
    says: /symlink/,
    spoil: async (layout, dir) => {
      const { digest } = await layout.write();
      await rename(layout.path(digest), join(dir, "outside"));
      await symlink(join(dir, "outside"), layout.path(digest));
    },
  },
  "a blob directory that is a symlink out": {
    reason: "IMAGE_HOSTILE",
    says: /symlink/,
    spoil: async (layout, dir) => {
      await layout.write();
      await rename(join(layout.dir, "blobs"), join(dir, "outside"));
      await symlink(join(dir, "outside"), join(layout.dir, "blobs"));
    },
  },
  "a blob that is a pipe": {
    reason: "IMAGE_HOSTILE",
    says: /plain file/,
    spoil: async (layout) => {
      const { digest } = await layout.write();
      await rm(layout.path(digest));
      await runTool("mkfifo", [layout.path(digest)]);
    },
  },
  "a hostile second layer": {
    reason: "IMAGE_HOSTILE",
    says: /layer 2 of 2 .*"\.\.\/x"/,
    spoil: async (layout) => {
      layout.layers[1] = await archiveOf([{ name: "../x", content: "x" }]);
      await layout.write();
    },
  },
};

test("a bad layout is refused and leaves nothing", asRoot, async (t) => {
  for (const [name, { reason, says, spoil }] of Object.entries(BAD_LAYOUTS)) {
    await t.test(name, async (inner) => {
      const dir = await scratch(inner);
      const layout = await Layout.create(dir, TWO_LAYERS);
      await spoil(layout, dir);
      const store = await openStore(dir);
      await refused(store.import(layout.dir, { name: "bad" }), reason, says);
      await assertEmpty(dir);
      assert.deepEqual(await store.list(), []);
    });
  }
});

test("a bad archive of an image is refused", asRoot, async (t) => {
  const dir = await scratch(t);
  const store = await openStore(dir);
  const config = {
    name: "config.json",
    content: JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [ZEROS] } }),
  };
  const manifest = (value: unknown): FixtureEntry => ({ name: "manifest.json", content: JSON.stringify(value) });
  const docker = { Config: "config.json", Layers: ["layer.tar"] };
  const cases: Readonly<Record<string, [FixtureEntry[], ErrorReason, RegExp]>> = {
    climbs: [[manifest([docker]), { name: "../x", content: "" }], "IMAGE_HOSTILE", /"\.\.\/x"/],
    "layer outside": [[manifest([{ ...docker, Layers: ["../../etc/passwd"] }]), config], "IMAGE_HOSTILE", /\.\./],
    "layer absolute": [[manifest([{ ...docker, Layers: ["/etc/passwd"] }]), config], "IMAGE_HOSTILE", /absolute/],
    "linked layer": [
      [manifest([docker]), config, { name: "layer.tar", type: "symlink", linkname: "../../etc/passwd" }],
      "IMAGE_HOSTILE",
      /outside/,
    ],
    "name twice": [[manifest([docker]), config, config], "IMAGE_HOSTILE", /already/],
    "no layer": [[manifest([docker]), config], "IMAGE_INVALID", /no file layer.tar/],
    "links in a circle": [
      [manifest([docker]), config, { name: "layer.tar", type: "symlink", linkname: "layer.tar" }],
      "IMAGE_INVALID",
      /no file/,
    ],
  };
  for (const [name, [entries, reason, says]] of Object.entries(cases)) {
    const path = join(dir, "bad.tar");
    await writeFile(path, await archiveOf(entries));
    await t.test(name, () => refused(store.import(path, { name: "bad", kind: "docker-archive" }), reason, says));
  }
  await writeFile(join(dir, "text"), "this is no archive".repeat(100));
  await refused(store.import(join(dir, "text"), { name: "bad" }), "IMAGE_INVALID", /not a tar archive/);
  await refused(store.import(join(dir, "nowhere"), { name: "bad" }), "INVALID_ARGUMENT", /nothing at/);
  await assertEmpty(dir);
});

test("two imports of one layer at once both succeed", asRoot, async (t) => {
  const dir = await scratch(t);
  const layout = await Layout.create(dir, TWO_LAYERS);
  await layout.write();
  const stores = await Promise.all([openStore(dir), openStore(dir)]);
  await Promise.all(stores.map((store, index) => store.import(layout.dir, { name: `copy${index}` })));
  assert.deepEqual(
    (await stores[0]?.list())?.map((info) => info.name),
    ["copy0:latest", "copy1:latest"],
  );
  assert.equal((await readdir(join(dir, "images/layers"))).length, 2);
  assert.deepEqual(await readdir(join(dir, "images/staging")), []);
});

/** An archive that takes a while, for what happens in between. */
async function largeArchive(dir: string, mib: number): Promise<string> {
  await runTool(
    "sh",
    ["-c", `mkdir big && head -c ${mib}M /dev/urandom > big/data && tar -cf big.tar big && rm -r big`],
    { cwd: dir },
  );
  return join(dir, "big.tar");
}

test("a full disk is named, and nothing is left on it", asRoot, async (t) => {
  const dir = await scratch(t);
  const archive = await largeArchive(dir, 12);
  for (const sizeMib of [8, 16, 20]) {
    const disk = join(dir, `disk${sizeMib}`);
    await mkdir(disk);
    await runTool("mount", ["-t", "tmpfs", "-o", `size=${sizeMib}m`, "belljar-test", disk]);
    try {
      const store = await openStore(disk);
      await refused(store.import(archive, { name: "big" }), "DISK_FULL", new RegExp(`disk${sizeMib}`));
      await assertEmpty(disk);
    } finally {
      await runTool("umount", [disk]);
    }
  }
});

test("a cancelled import leaves nothing, at every step", asRoot, async (t) => {
  const dir = await scratch(t);
  const layout = await Layout.create(dir, TWO_LAYERS);
  await layout.write();
  for (let at = 1; at <= 4; at += 1) {
    const store = await openStore(dir);
    const controller = new AbortController();
    let steps = 0;
    const progress = (): void => {
      steps += 1;
      if (steps === at) controller.abort();
    };
    await refused(store.import(layout.dir, { name: "x", signal: controller.signal, progress }), "CANCELLED");
    await assertEmpty(dir);
  }
});

test("what a killed import left is removed by the next one who opens the store", asRoot, async (t: TestContext) => {
  const dir = await scratch(t);
  const archive = await largeArchive(dir, 100);
  const program = `
    const { openImageStore } = await import(${JSON.stringify(new URL("./index.ts", import.meta.url).href)});
    const { silentLog } = await import(${JSON.stringify(new URL("../base/index.ts", import.meta.url).href)});
    const store = await openImageStore({ dir: ${JSON.stringify(join(dir, "images"))}, log: silentLog });
    await store.import(${JSON.stringify(archive)}, { name: "x", progress: (step) => { if (step.startsWith("layer")) setTimeout(() => process.stdout.write("busy"), 20); } });`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "close");
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await ended;
  assert.equal((await readdir(join(dir, "images/staging"))).length, 1, "it was killed in the middle");
  const store = await openStore(dir);
  await store.collectGarbage();
  await assertEmpty(dir);
  assert.deepEqual(await store.list(), []);
});

test("the images of the guest image are there in a fresh root, and follow it", asRoot, async (t) => {
  const dir = await scratch(t);
  const guestDir = join(dir, "guest");
  const writeGuest = async (digest: string, content: string): Promise<void> => {
    await mkdir(join(guestDir, digest), { recursive: true });
    await writeFile(
      join(guestDir, digest, "busybox.tar.zst"),
      gzipSync(await archiveOf([{ name: "bin/busybox", content }])),
    );
    const builtin = {
      busybox: { architecture: "amd64", os: "linux", layer: "busybox.tar.zst", config: { Cmd: ["sh"] } },
    };
    await writeFile(join(guestDir, digest, "builtin.json"), JSON.stringify(builtin));
    await writeFile(join(guestDir, "current"), `${digest}\n`);
  };
  await writeGuest("a".repeat(64), "one");
  assert.equal((await prepareBuiltins({ guestDir, log: silentLog })).length, 1);
  assert.equal((await prepareBuiltins({ guestDir, log: silentLog })).length, 0, "nothing has changed");
  const store = await openImageStore({ dir: join(dir, "root/images"), guestDir, log: silentLog });
  const first = await store.resolve("busybox");
  assert.deepEqual(first.config.cmd, ["sh"]);
  assert.deepEqual(
    (await store.list()).map((info) => [info.name, info.builtin]),
    [["busybox:latest", true]],
  );
  await refused(store.remove("busybox"), "INVALID_ARGUMENT", /comes with the guest image/);
  await writeGuest("b".repeat(64), "two");
  await prepareBuiltins({ guestDir, log: silentLog });
  assert.notEqual((await store.resolve("docker.io/library/busybox")).digest, first.digest);
});
