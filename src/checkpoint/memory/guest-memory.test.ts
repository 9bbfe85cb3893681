import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "../../../test/support/harness.ts";
import { mountTmpfs } from "../../../test/support/tmpfs.ts";
import type { MemoryBlock } from "../../hypervisor/interface.ts";
import { createGuestMemory, type GuestMemory, type SavedMemory } from "./guest-memory.ts";
import { countPages, PAGE_BYTES } from "./page-runs.ts";

const MIB = 1024 * 1024;
const SIZE_MIB = 80;
/** Of every five, the first is never written to. */
const PROGRAM = `
  const bytes = Buffer.alloc(${SIZE_MIB * MIB});
  for (let at = 0; at < bytes.length; at += 4096) if (Math.floor(at / ${MIB}) % 5 > 0) bytes.writeUInt32LE(at + 1, at);
  console.log("ready");
  process.stdin.resume().on("data", () => bytes[0]);`;

/** A process that stands still, with memory of which it has written to a part. */
async function startProgram(): Promise<{
  readonly child: ChildProcess;
  readonly pid: number;
  readonly block: MemoryBlock;
}> {
  const child = spawn(process.execPath, ["-e", PROGRAM], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  const pid = child.pid ?? 0;
  child.kill("SIGSTOP");
  for (const map of (await readFile(`/proc/${pid}/smaps`, "latin1")).split(/\n(?=[0-9a-f]+-)/)) {
    const [, from = "", to = ""] = /^([0-9a-f]+)-([0-9a-f]+) rw-p /.exec(map) ?? [];
    const residentKib = Number(/^Rss: +(\d+) kB$/m.exec(map)?.[1]);
    if (residentKib * 1024 < (SIZE_MIB / 2) * MIB) continue;
    const address = Number.parseInt(from, 16);
    return {
      child,
      pid,
      block: { name: "ram", address, sizeBytes: Number.parseInt(to, 16) - address, isUnused: false },
    };
  }
  child.kill("SIGKILL");
  throw new Error("the program's memory is not among its maps");
}

interface Setup extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly dir: string;
  readonly memory: GuestMemory;
  readonly pid: number;
  readonly block: MemoryBlock;
  /** What the program has in memory. */
  readonly process: FileHandle;
}

async function setUp(): Promise<Setup> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-guest-memory-"));
  const memory = createGuestMemory();
  const { child, pid, block } = await startProgram();
  const process = await open(`/proc/${pid}/mem`, "r+");
  return {
    child,
    dir,
    memory,
    pid,
    block,
    process,
    async [Symbol.asyncDispose]() {
      await process.close();
      child.kill("SIGKILL");
      await memory.close();
      await rm(dir, { recursive: true });
    },
  };
}

/** Of the only block: the first page, and how many. */
function runsOf(saved: SavedMemory | undefined): [number, number][] {
  const { runs = new Uint32Array(0) } = saved?.blocks[0] ?? {};
  return Array.from({ length: runs.length / 2 }, (_, at) => [runs[2 * at] ?? 0, runs[2 * at + 1] ?? 0]);
}

async function bytesAt(file: FileHandle, length: number, position: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(buffer, at, length - at, position + at);
    assert.notEqual(bytesRead, 0, `it ends ${length - at} bytes too soon`);
    at += bytesRead;
  }
  return buffer;
}

test("memory of a process is saved as it is when it is saved, however much there was when the file was made", async () => {
  await using setup = await setUp();
  const { dir, memory, pid, block, process } = setup;
  const saved = async (
    before: MemoryBlock,
    path: string,
    meanwhile = async (): Promise<void> => {},
  ): Promise<number> => {
    const prepared = await memory.prepare(pid, [before], path);
    await meanwhile();
    const { blocks, write } = await memory.save(pid, [block], path, prepared);
    await write();
    const [{ runs } = { runs: new Uint32Array(0) }] = blocks;
    await using file = await open(path, "r");
    let at = 0;
    for (let index = 0; index < runs.length; index += 2) {
      const length = (runs[index + 1] ?? 0) * PAGE_BYTES;
      const wanted = await bytesAt(process, length, block.address + (runs[index] ?? 0) * PAGE_BYTES);
      assert.ok((await bytesAt(file, length, at)).equals(wanted), `run ${index / 2} of ${runs.length / 2}`);
      at += length;
    }
    assert.equal((await file.stat()).size, at);
    return countPages(blocks);
  };
  const first = await saved(block, join(dir, "all"));
  // Four fifths, and what the allocator has beside it.
  assert.ok(first >= (SIZE_MIB * 0.8 * MIB) / PAGE_BYTES && first < (SIZE_MIB * 0.85 * MIB) / PAGE_BYTES, `${first}`);
  const more = await saved(block, join(dir, "more"), async () => {
    for (let page = 0; page < 5 * MIB; page += PAGE_BYTES)
      await process.write(Buffer.of(7), 0, 1, block.address + page);
  });
  assert.ok(more > first + 200, `${more} after ${first}`);
  assert.equal(await saved({ ...block, sizeBytes: 2 * MIB }, join(dir, "little")), more);
  assert.deepEqual(await Promise.all(["one", "two"].map((name) => saved(block, join(dir, name)))), [more, more]);
  await assert.rejects(memory.prepare(pid, [block], join(dir, "all")), { reason: "DISK_FAILED" });
});

test("a second guest's memory is copied before the first one's is written, and both files are whole", async () => {
  await using setup = await setUp();
  const { dir, memory, pid, block, process } = setup;
  const sizeBytes = 12 * MIB;
  const guests = [0, 1, 2].map((at) => ({
    path: join(dir, String(at)),
    part: { ...block, address: block.address + at * 20 * MIB, sizeBytes },
  }));
  const copied: SavedMemory[] = [];
  for (const { path, part } of guests) {
    copied.push(await memory.save(pid, [part], path, await memory.prepare(pid, [part], path)));
  }
  for (const { write } of copied) await write();
  for (const [index, { path, part }] of guests.entries()) {
    await using file = await open(path, "r");
    let at = 0;
    for (const [runAt, count] of runsOf(copied[index])) {
      const wanted = await bytesAt(process, count * PAGE_BYTES, part.address + runAt * PAGE_BYTES);
      assert.ok((await bytesAt(file, wanted.length, at)).equals(wanted), `${index}: page ${runAt}`);
      at += wanted.length;
    }
    assert.ok(at > sizeBytes / 2);
    assert.equal((await file.stat()).size, at);
  }
  // Once.
  await assert.rejects(copied[0]?.write() ?? Promise.resolve(), { reason: "DISK_FAILED" });
});

test("a disk without room for a guest's memory is told before anything of it is copied", async (t) => {
  const small = await mountTmpfs(t, 8);
  await using setup = await setUp();
  const { memory, pid, block } = setup;
  await assert.rejects(memory.prepare(pid, [block], join(small, "all")), { reason: "DISK_FULL" });
  const { runs } = await memory.prepare(pid, [{ ...block, sizeBytes: 4 * MIB }], join(small, "little"));
  assert.ok(countPages(runs.map((each) => ({ runs: each }))) * PAGE_BYTES <= 4 * MIB);
});

test("thousands of pages that are apart go into another process, each to its place and nothing beside it", async () => {
  await using from = await setUp();
  await using to = await setUp();
  const path = join(from.dir, "all");
  // Every second page of what the program never writes to, in both.
  const untouched = (page: number): number => 5 * MIB * Math.floor(page / 128) + 2 * PAGE_BYTES * (page % 128);
  const start = 64 * PAGE_BYTES;
  for (let page = 0; page < 16 * 128; page += 1) {
    await from.process.write(Buffer.from(`page ${page}`), 0, null, from.block.address + start + untouched(page));
  }
  const prepared = await from.memory.prepare(from.pid, [from.block], path);
  const { blocks, write } = await from.memory.save(from.pid, [from.block], path, prepared);
  await write();
  const [{ runs, sizeBytes } = { runs: new Uint32Array(0), sizeBytes: 0 }] = blocks;
  assert.ok(runs.length / 2 > 1500, `${runs.length / 2} runs`);
  const target = { ...to.block, sizeBytes };
  const before = await bytesAt(to.process, sizeBytes, target.address);
  await to.memory.load(to.pid, [target], blocks, { path, at: 0 });
  const wanted = Buffer.from(before);
  for (let at = 0; at < runs.length; at += 2) {
    const [place, length] = [(runs[at] ?? 0) * PAGE_BYTES, (runs[at + 1] ?? 0) * PAGE_BYTES];
    wanted.set(await bytesAt(from.process, length, from.block.address + place), place);
  }
  assert.ok(!wanted.equals(before));
  assert.ok((await bytesAt(to.process, sizeBytes, target.address)).equals(wanted));
});

test("a process that has ended, and memory that is not there, are said to be gone", async () => {
  await using setup = await setUp();
  const { dir, memory, pid, block } = setup;
  const blocks = [{ name: "ram" as const, sizeBytes: PAGE_BYTES, runs: Uint32Array.of(0, 1) }];
  const path = join(dir, "page");
  await writeFile(path, Buffer.alloc(PAGE_BYTES));
  const load = (id: number, address: number): Promise<void> =>
    memory.load(id, [{ ...block, address, sizeBytes: PAGE_BYTES }], blocks, { path, at: 0 });
  await assert.rejects(load(pid, PAGE_BYTES), { reason: "VMM_DIED" });
  setup.child.kill("SIGKILL");
  await once(setup.child, "exit");
  await assert.rejects(load(pid, block.address), { reason: "VMM_DIED" });
  await assert.rejects(memory.prepare(pid, [block], join(dir, "all")), { reason: "VMM_DIED" });
});
