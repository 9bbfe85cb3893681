import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { BelljarError, silentLog } from "../base/index.ts";
import { FileHashes } from "./file-hashes.ts";
import { openGuestImages } from "./guest-images.ts";
import { GUEST_FILES, type GuestInputs, MANIFEST_VERSION } from "./manifest.ts";
import { StoredImages } from "./stored-images.ts";

const SHA = "0".repeat(64);
const INPUTS: GuestInputs = {
  architecture: "x64",
  recipeSha256: SHA,
  builderSha256: SHA,
  packages: [{ name: "crun", version: "1.8.1-1", sha256: SHA }],
  node: { version: "24.0.0", sha256: SHA },
  agentSha256: SHA,
  tools: { "mkfs.erofs": "1.5" },
};

async function scratch(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-guest-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** Publishes an image whose files are a few bytes each, and makes it current. */
async function fakeImage(dir: string, content: string): Promise<string> {
  await mkdir(join(dir, "cache"), { recursive: true });
  const stored = new StoredImages({ dir, hashes: new FileHashes(join(dir, "cache/hashes.json")) });
  const temporary = join(dir, "making");
  await mkdir(temporary);
  for (const name of Object.values(GUEST_FILES)) await writeFile(join(temporary, name), `${content} ${name}`);
  const image = await stored.add(temporary, {
    version: MANIFEST_VERSION,
    inputs: INPUTS,
    kernelRelease: "6.1.0-1",
    kernelArguments: ["quiet"],
  });
  await stored.setCurrent(image.digest);
  return image.digest;
}

/** Uses the image until all of its files would be believed without being read: only then can damage go unnoticed. */
async function useUntilRemembered(dir: string): Promise<void> {
  for (;;) {
    await openGuestImages({ dir, log: silentLog }).current();
    const text = await readFile(join(dir, "cache/hashes.json"), "utf8").catch(() => "{}");
    if (Object.keys(JSON.parse(text)).length === Object.keys(GUEST_FILES).length) return;
  }
}

async function flipFirstByte(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 0);
    buffer[0] = (buffer[0] ?? 0) ^ 1;
    await file.write(buffer, 0, 1, 0);
  } finally {
    await file.close();
  }
}

const corrupt =
  (...words: readonly string[]) =>
  (error: unknown): boolean =>
    error instanceof BelljarError &&
    error.reason === "GUEST_IMAGE_CORRUPT" &&
    words.every((word) => error.message.includes(word));

test("without an image, using one says how to get it", async (t) => {
  const images = openGuestImages({ dir: join(await scratch(t), "none"), log: silentLog });
  await assert.rejects(
    images.current(),
    (error) =>
      error instanceof BelljarError && error.reason === "GUEST_IMAGE_MISSING" && /guest build/.test(error.remedy ?? ""),
  );
  assert.deepEqual(await images.list(), []);
});

test("a whole image is handed out with its paths, and listed with its versions", async (t) => {
  const dir = await scratch(t);
  const old = await fakeImage(dir, "old");
  const digest = await fakeImage(dir, "new");
  const images = openGuestImages({ dir, log: silentLog });
  const image = await images.current();
  assert.equal(image.digest, digest);
  assert.equal(await readFile(image.rootPath, "utf8"), "new root.erofs");
  assert.deepEqual(image.kernelArguments, ["quiet"]);
  const infos = await images.list();
  assert.deepEqual(
    infos.map((info) => [info.digest, info.current, info.nodeVersion, info.packages]),
    [
      [digest, true, "24.0.0", { crun: "1.8.1-1" }],
      [old, false, "24.0.0", { crun: "1.8.1-1" }],
    ],
  );
  for (const look of [images.verify, images.open]) assert.equal((await look(old)).digest, old);
});

for (const restoreTimes of [false, true]) {
  test(`one flipped bit is refused by current and verify, times ${restoreTimes ? "put back" : "left alone"}`, async (t) => {
    const dir = await scratch(t);
    const digest = await fakeImage(dir, "x");
    const path = join(dir, digest, GUEST_FILES.root);
    // A whole second, so that it can be put back exactly.
    const time = new Date("2024-01-01T00:00:00Z");
    await utimes(path, time, time);
    await useUntilRemembered(dir);
    await flipFirstByte(path);
    if (restoreTimes) await utimes(path, time, time);
    const images = openGuestImages({ dir, log: silentLog });
    await assert.rejects(images.current(), corrupt("root.erofs", "damaged"));
    await assert.rejects(images.verify(), corrupt("root.erofs", "damaged"));
  });
}

test("a missing file, a shortened file and a changed manifest are each refused by name", async (t) => {
  const dir = await scratch(t);
  const images = openGuestImages({ dir, log: silentLog });
  const first = await fakeImage(dir, "a");
  await rm(join(dir, first, GUEST_FILES.kernel));
  await assert.rejects(images.current(), corrupt("kernel", "missing"));
  const second = await fakeImage(dir, "b");
  await writeFile(join(dir, second, GUEST_FILES.initrd), "");
  await assert.rejects(images.current(), corrupt("initrd", "damaged"));
  const third = await fakeImage(dir, "c");
  const manifest = join(dir, third, "manifest.json");
  await writeFile(manifest, (await readFile(manifest, "utf8")).replace("quiet", "debug"));
  await assert.rejects(images.current(), corrupt("manifest.json", "changed"));
  await rm(manifest);
  await assert.rejects(images.current(), corrupt("no manifest"));
});

test("a pointer to the current image that names none is refused", async (t) => {
  const dir = await scratch(t);
  await writeFile(join(dir, "current"), "../../etc\n");
  await assert.rejects(openGuestImages({ dir, log: silentLog }).current(), corrupt("current"));
});

test("the same bytes under the same digest replace a damaged image and leave a whole one", async (t) => {
  const dir = await scratch(t);
  const digest = await fakeImage(dir, "x");
  const path = join(dir, digest, GUEST_FILES.root);
  const { ino } = await stat(path);
  await rm(join(dir, "making"), { recursive: true, force: true });
  assert.equal(await fakeImage(dir, "x"), digest);
  assert.equal((await stat(path)).ino, ino, "a whole image must not be touched");
  await rm(join(dir, "making"), { recursive: true, force: true });
  await flipFirstByte(path);
  assert.equal(await fakeImage(dir, "x"), digest);
  await openGuestImages({ dir, log: silentLog }).verify();
  assert.deepEqual((await readdir(dir)).sort(), [digest, "cache", "current"].sort());
});

test("a build that fails leaves the current image, and removes what an interrupted one had left", async (t) => {
  const dir = await scratch(t);
  const digest = await fakeImage(dir, "x");
  await mkdir(join(dir, ".belljar-tmp-1234/unpacked"), { recursive: true });
  await mkdir(join(dir, "cache/.belljar-tmp-5678/partial"), { recursive: true });
  const images = openGuestImages({
    dir,
    log: silentLog,
    sources: { recipeDir: join(dir, "no-recipe"), agentEntry: join(dir, "no-agent.ts") },
  });
  await assert.rejects(images.build());
  assert.equal((await images.current()).digest, digest);
  assert.deepEqual((await readdir(dir)).sort(), [digest, "build.lock", "cache", "current"].sort());
  // On a slow host the image's files are old enough for their hashes to be kept.
  assert.deepEqual(
    (await readdir(join(dir, "cache"))).filter((name) => name !== "hashes.json"),
    [],
  );
});
