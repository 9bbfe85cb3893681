import assert from "node:assert/strict";
import { open, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { CLUSTER_BYTES, writeOverlay } from "./qcow2.ts";
import { joinImages } from "./qcow2-join.ts";

const GIB = 2 ** 30;
const ZERO = 1n;
const MASK = 0x00fffffffffffe00n;

/** What a layer says of a cluster: the byte that fills it, or that it reads as zeros. */
type Content = ReadonlyMap<number, number | "zeros">;

/** As QEMU would have written it, at the end of the file; references are not counted, which nobody here looks at. */
async function layer(
  t: TestScope,
  name: string,
  sizeBytes: number,
  backingFile: string,
  content: Content,
): Promise<string> {
  const path = join(t.dir, name);
  await writeOverlay({ path, sizeBytes, backingFile, backingFormat: backingFile.endsWith(".raw") ? "raw" : "qcow2" });
  const file = await open(path, "r+");
  try {
    const header = Buffer.alloc(104);
    await file.read(header, 0, 104, 0);
    const l1At = Number(header.readBigUInt64BE(40));
    let end = (await file.stat()).size;
    const entry = async (at: number, value: bigint): Promise<void> => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64BE(value);
      await file.write(bytes, 0, 8, at);
    };
    const tables = new Map<number, number>();
    for (const [cluster, byte] of content) {
      const table = Math.floor(cluster / 8192);
      let l2 = tables.get(table);
      if (l2 === undefined) {
        l2 = end;
        tables.set(table, l2);
        end += CLUSTER_BYTES;
        await file.truncate(end);
        await entry(l1At + table * 8, BigInt(l2) | (1n << 63n));
      }
      const at = l2 + (cluster % 8192) * 8;
      if (byte === "zeros") await entry(at, ZERO);
      else {
        await file.write(Buffer.alloc(CLUSTER_BYTES, byte), 0, CLUSTER_BYTES, end);
        await entry(at, BigInt(end) | (1n << 63n));
        end += CLUSTER_BYTES;
      }
    }
    return path;
  } finally {
    await file.close();
  }
}

/** What an image says, by its own tables. */
async function contentOf(path: string): Promise<Content> {
  const file = await open(path, "r");
  try {
    const read = async (at: number, bytes: number): Promise<Buffer> =>
      (await file.read(Buffer.alloc(bytes), 0, bytes, at)).buffer;
    const header = await read(0, 104);
    const l1 = await read(Number(header.readBigUInt64BE(40)), header.readUInt32BE(36) * 8);
    const found = new Map<number, number | "zeros">();
    for (let table = 0; table * 8 < l1.length; table += 1) {
      const at = Number(l1.readBigUInt64BE(table * 8) & MASK);
      if (at === 0) continue;
      const l2 = await read(at, CLUSTER_BYTES);
      for (let index = 0; index < 8192; index += 1) {
        const value = l2.readBigUInt64BE(index * 8);
        if (value === 0n) continue;
        if ((value & ZERO) !== 0n) found.set(table * 8192 + index, "zeros");
        else {
          const data = await read(Number(value & MASK), CLUSTER_BYTES);
          assert.ok(data.every((byte) => byte === data[0]));
          found.set(table * 8192 + index, data[0] ?? -1);
        }
      }
    }
    return found;
  } finally {
    await file.close();
  }
}

const sorted = (content: Content): (readonly [number, number | "zeros"])[] => [...content].sort(([a], [b]) => a - b);

test("images that lie over one another become one, with what is uppermost", async (t) => {
  const size = 3 * GIB;
  const low = new Map<number, number | "zeros">([
    [0, 1],
    [1, 1],
    [2, 1],
    [9000, 1],
    [40_000, 7],
  ]);
  const middle = new Map<number, number | "zeros">([
    [1, 2],
    [2, "zeros"],
    [8191, 2],
    [8192, 2],
  ]);
  const top = new Map<number, number | "zeros">([
    [2, 3],
    [9000, "zeros"],
    [20_000, 3],
    [20_001, 4],
  ]);
  await layer(t, "w.qcow2", GIB * 2.5, "blank.raw", low);
  await layer(t, "w.1.qcow2", size, "w.qcow2", middle);
  await layer(t, "w.2.qcow2", size, "w.1.qcow2", top);
  const path = join(t.dir, "w.0.qcow2");
  const layers = ["w.2.qcow2", "w.1.qcow2", "w.qcow2"].map((name) => join(t.dir, name));
  await joinImages({ layers, path, backingFile: "blank.raw" });
  const expected = new Map([...low, ...middle, ...top]);
  assert.deepEqual(sorted(await contentOf(path)), sorted(expected));
  const header = (await readFile(path)).subarray(0, 1024);
  assert.equal(Number(header.readBigUInt64BE(24)), size);
  assert.ok(header.includes("blank.raw"));
  // As many clusters as its counts of references say: 5 tables and 8 clusters of data, after 4 of its own.
  const data = [...expected.values()].filter((each) => each !== "zeros").length;
  const tables = new Set([...expected.keys()].map((cluster) => Math.floor(cluster / 8192))).size;
  assert.equal((await stat(path)).size, (4 + tables + data) * CLUSTER_BYTES);
  const counts = (await readFile(path)).subarray(2 * CLUSTER_BYTES, 3 * CLUSTER_BYTES);
  const counted = Array.from({ length: CLUSTER_BYTES / 2 }, (_, index) => counts.readUInt16BE(index * 2));
  assert.equal(counted.filter((count) => count === 1).length, 4 + tables + data);
  // What was joined can be joined again.
  await layer(t, "w.3.qcow2", size, "w.0.qcow2", new Map([[0, 9]]));
  const again = join(t.dir, "w.9.qcow2");
  await joinImages({ layers: [join(t.dir, "w.3.qcow2"), path], path: again, backingFile: "blank.raw" });
  assert.deepEqual(sorted(await contentOf(again)), sorted(new Map([...expected, [0, 9]])));
});

test("an image that is not understood is refused, and nothing is left", async (t) => {
  const good = await layer(t, "good.qcow2", GIB, "blank.raw", new Map([[0, 1]]));
  const path = join(t.dir, "w.0.qcow2");
  const bytes = await readFile(good);
  const bad = join(t.dir, "bad.qcow2");
  const change = async (at: number, value: number): Promise<void> => {
    const changed = Buffer.from(bytes);
    changed[at] = value;
    await writeFile(bad, changed);
  };
  // Magic, version, size of clusters, encryption, snapshots inside, features, length of the first level.
  for (const [at, value] of [
    [0, 0],
    [7, 2],
    [23, 9],
    [35, 1],
    [63, 1],
    [79, 1],
    [36, 0xff],
  ] as const) {
    await change(at, value);
    await assert.rejects(joinImages({ layers: [bad], path, backingFile: "blank.raw" }), { reason: "DISK_INVALID" });
  }
  // A compressed cluster.
  const l2 = Number(bytes.readBigUInt64BE(3 * CLUSTER_BYTES) & MASK);
  await change(l2, 0x40);
  await assert.rejects(joinImages({ layers: [bad], path, backingFile: "blank.raw" }), { message: /compressed/ });
  await writeFile(bad, bytes);
  await truncate(bad, l2);
  await assert.rejects(joinImages({ layers: [bad], path, backingFile: "blank.raw" }), { message: /cut short/ });
  await assert.rejects(joinImages({ layers: [good], path, backingFile: "blank.raw", signal: AbortSignal.abort() }), {
    name: "AbortError",
  });
  assert.deepEqual(
    (await readdir(t.dir)).filter((name) => name.startsWith("w.")),
    [],
  );
});
