/**
 * Unpacks an archive that is made while it is unpacked, with GNU tar. It goes through a real pipe: what Node calls one is a socket, which
 * takes half as long again.
 */
import { constants } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { hasErrno, imageLimits, runTool } from "../base/index.ts";
import { toolError } from "./layer-pack.ts";

/** Size of the pieces in which the archive is handed over, and in which tar reads it, in its blocks. */
const FEED_BYTES = 256 * 1024;
const BLOCKING_FACTOR = FEED_BYTES / 512;

const ARGUMENTS = [
  "--extract",
  "--file=-",
  `--blocking-factor=${BLOCKING_FACTOR}`,
  "--numeric-owner",
  "--same-owner",
  "--preserve-permissions",
  "--xattrs",
  "--xattrs-include=*",
  "--no-acls",
  "--no-selinux",
  "--delay-directory-restore",
  "--warning=no-timestamp",
];

/** @throws what reading the archive throws; BelljarError `DISK_FULL`, `PERMISSION_DENIED`, `CANCELLED`, `HOST_TOOL_*` */
export async function extract(root: string, archive: AsyncGenerator<Buffer>, signal?: AbortSignal): Promise<void> {
  const failure = new AbortController();
  const either = signal === undefined ? failure.signal : AbortSignal.any([signal, failure.signal]);
  const { reading, writing } = await makePipe(`${root}.pipe`);
  // Its end of the pipe is its own from its start on; while we had it too, a tar that died would not be noticed.
  const tar = runTool("tar", [...ARGUMENTS, `--directory=${root}`], {
    stdin: reading,
    signal: either,
    timeoutMs: imageLimits.timeoutMs,
  }).catch((error: unknown) => {
    throw toolError(error, root);
  });
  tar.catch(() => {});
  try {
    await feed(writing, archive);
  } catch (error) {
    // A program may stop reading before the end of its input; whether that is an error is for its exit status to say.
    if (!hasErrno(error, "EPIPE")) {
      failure.abort(error);
      await tar.catch(() => {});
      throw error;
    }
  } finally {
    await writing.close();
    await archive.return(undefined);
  }
  await tar;
}

/** One piece is on its way while the next is made. */
async function feed(writing: FileHandle, archive: AsyncIterable<Buffer>): Promise<void> {
  let waiting: Buffer[] = [];
  let bytes = 0;
  let underWay: Promise<void> = Promise.resolve();
  try {
    for await (const chunk of archive) {
      if (chunk.length === 0) continue;
      waiting.push(chunk);
      bytes += chunk.length;
      if (bytes < FEED_BYTES) continue;
      await underWay;
      underWay = writeAll(writing, waiting, bytes);
      underWay.catch(() => {});
      waiting = [];
      bytes = 0;
    }
    await underWay;
    await writeAll(writing, waiting, bytes);
  } finally {
    // The pipe is closed next; what is still being written ends with its reader at the latest.
    await underWay.catch(() => {});
  }
}

async function writeAll(writing: FileHandle, chunks: readonly Buffer[], bytes: number): Promise<void> {
  if (bytes === 0) return;
  const { bytesWritten } = await writing.writev([...chunks]);
  if (bytesWritten === bytes) return;
  const rest = Buffer.concat(chunks, bytes).subarray(bytesWritten);
  await writeAll(writing, [rest], rest.length);
}

/** None of the opens waits for another end: the first one has both. */
async function makePipe(path: string): Promise<{ readonly reading: FileHandle; readonly writing: FileHandle }> {
  await runTool("mkfifo", ["--mode=0600", path]);
  await using _both = await open(path, constants.O_RDWR);
  await rm(path);
  const self = `/proc/self/fd/${_both.fd}`;
  const reading = await open(self, constants.O_RDONLY);
  return { reading, writing: await open(self, constants.O_WRONLY) };
}
