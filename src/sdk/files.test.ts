/** Files over the daemon: what is written is read again, errors come as they were thrown, and a daemon may die in between. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { fileLimits, silentLog } from "../base/index.ts";
import { type Daemon, startDaemon } from "../daemon/index.ts";
import { type Files, Runtime } from "./index.ts";

interface Scene {
  readonly runtime: FakeRuntime;
  readonly files: Files;
  restart(): Promise<void>;
}

async function scene(t: TestScope): Promise<Scene> {
  const dir = await tempDir(t);
  const fake = new FakeRuntime();
  const openRuntime = async (): Promise<FakeRuntime> => fake;
  const serve = (): Promise<Daemon> => startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime });
  let daemon = await serve();
  t.after(() => daemon.stop());
  const runtime = await Runtime.connect({ root: t.dir, socketPath: daemon.socketPath, startDaemon: false });
  t.after(() => runtime[Symbol.asyncDispose]());
  const { files } = await runtime.sandboxes.create({ image: "fake", container: { command: ["wait"] } });
  return {
    runtime: fake,
    files,
    restart: async () => {
      await daemon.stop();
      daemon = await serve();
    },
  };
}

test("files go over the daemon and come back", async (t) => {
  const { files, runtime } = await scene(t);
  const data = randomBytes(3 * fileLimits.chunkMaxBytes + 17);
  await files.write("a", data, { mode: 0o600, user: "5:6", modifiedAtMs: 1.5 });
  assert.deepEqual(Buffer.from(await files.read("a")), data);
  await files.write("b", "text");
  const whole: Uint8Array[] = [];
  for await (const piece of files.readStream("a")) whole.push(piece);
  assert.deepEqual(Buffer.concat(whole), data);
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    const reused = Buffer.alloc(1000);
    for (let at = 0; at < data.length; at += 1000) yield reused.subarray(0, data.copy(reused, 0, at));
  };
  await files.write("c", chunks());
  assert.deepEqual(Buffer.from(await files.read("c")), data);
  await files.rename("c", "d");
  const { entries, unnameable } = await files.list("");
  assert.deepEqual(
    entries.map(({ name, info }) => [name, info.sizeBytes, info.mode]),
    [
      ["a", data.length, 0o600],
      ["b", 4, 0o644],
      ["d", data.length, 0o644],
    ],
  );
  assert.equal(unnameable, 1);
  await files.remove("d");
  await assert.rejects(files.stat("d"), { reason: "FILE_NOT_FOUND" });
  await assert.rejects(files.read("d"), { reason: "FILE_NOT_FOUND" });
  await assert.rejects(files.makeDirectory("x"), { reason: "FILE_EXISTS" });
  const [fake] = runtime.all.values();
  assert.equal(fake?.files.open.size, 0, "nothing stays open");
});

test("a daemon that dies in the middle of a file is waited for, and the file is whole", async (t) => {
  const { files, restart } = await scene(t);
  const data = randomBytes(8 * fileLimits.chunkMaxBytes);
  const slow = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < data.length; at += fileLimits.chunkMaxBytes) {
      if (at === 4 * fileLimits.chunkMaxBytes) await restart();
      yield data.subarray(at, at + fileLimits.chunkMaxBytes);
    }
  };
  await files.write("a", slow());
  const pieces: Uint8Array[] = [];
  for await (const piece of files.readStream("a")) {
    pieces.push(piece);
    if (pieces.length === 2) await restart();
  }
  assert.deepEqual(Buffer.concat(pieces), data);
});

test("what is given up or fails leaves nothing, and a watch ends with its signal", async (t) => {
  const { files, runtime } = await scene(t);
  const stop = new AbortController();
  const endless = async function* (): AsyncGenerator<Uint8Array> {
    for (let count = 0; ; count += 1) {
      if (count === 5) stop.abort();
      yield Buffer.alloc(fileLimits.chunkMaxBytes);
    }
  };
  await assert.rejects(files.write("a", endless(), { signal: stop.signal }), { reason: "CANCELLED" });
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.alloc(10);
    throw new Error("no more");
  };
  await assert.rejects(files.write("a", failing()), { message: "no more" });
  const [fake] = runtime.all.values();
  assert.deepEqual([fake?.files.files.size, fake?.files.open.size], [0, 0]);
  const end = new AbortController();
  const names: string[] = [];
  const watching = (async () => {
    for await (const { name } of await files.watch("", { signal: end.signal })) {
      names.push(name);
      if (names.length === 3) end.abort();
    }
  })();
  await assert.rejects(watching, { reason: "CANCELLED" });
  assert.deepEqual(names, ["f0", "f1", "f2"]);
});
