/**
 * `checkpoint.img`: Belljar's own state of the sandbox, in the form of a state file, and after it the device state as the VMM wrote it.
 * A header says how long the first is.
 */
import { type FileHandle, open, readFile, writeFile } from "node:fs/promises";
import { BelljarError } from "../base/index.ts";
import { type ContainerState, containerSandboxSchema } from "../container/index.ts";
import type { SandboxState } from "../sandbox/index.ts";
import { decodeState, encodeEnvelope } from "../store/index.ts";

const MAGIC = Buffer.from("BLJRCKPT");
const VERSION = 1;
const HEADER_BYTES = 16;
const STATE_MAX_BYTES = 16 * 1024 * 1024;

/** Answers where the device state begins. */
export async function writeImage(
  path: string,
  state: SandboxState<ContainerState>,
  devicesPath: string,
): Promise<{ readonly devicesAt: number; readonly devicesBytes: number }> {
  const { kind, migrations } = containerSandboxSchema;
  const text = encodeEnvelope({ kind, version: migrations.length + 1, sequence: 1 }, state);
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(text.length, 12);
  // A few hundred kilobytes: one device more or less makes no difference.
  const devices = await readFile(devicesPath);
  await writeFile(path, Buffer.concat([header, text, devices]), { flag: "wx", mode: 0o600 });
  return { devicesAt: HEADER_BYTES + text.length, devicesBytes: devices.length };
}

/** @throws BelljarError `CHECKPOINT_INCOMPLETE`, `CHECKPOINT_CORRUPT`, `CHECKPOINT_MISMATCH` */
export async function readImage(path: string): Promise<SandboxState<ContainerState>> {
  const file = await open(path, "r").catch((cause: unknown) => {
    throw new BelljarError("CHECKPOINT_INCOMPLETE", `${path} cannot be read`, { facts: { path }, cause });
  });
  try {
    const header = await readAt(file, path, 0, HEADER_BYTES);
    if (!header.subarray(0, 8).equals(MAGIC)) throw corrupt(path, "it does not begin like one");
    const version = header.readUInt32LE(8);
    if (version !== VERSION) {
      throw new BelljarError("CHECKPOINT_MISMATCH", `${path} has version ${version}; this program reads ${VERSION}`);
    }
    const length = header.readUInt32LE(12);
    if (length > STATE_MAX_BYTES) throw corrupt(path, "its state is too long");
    const text = await readAt(file, path, HEADER_BYTES, length);
    return decodeState(text, path, containerSandboxSchema).value;
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (error.reason === "STATE_CORRUPT") throw corrupt(path, error.message);
    if (error.reason !== "STATE_VERSION") throw error;
    throw new BelljarError("CHECKPOINT_MISMATCH", error.message, { facts: error.facts, cause: error });
  } finally {
    await file.close();
  }
}

async function readAt(file: FileHandle, path: string, at: number, bytes: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(bytes), 0, bytes, at);
  if (bytesRead === bytes) return buffer;
  throw new BelljarError("CHECKPOINT_INCOMPLETE", `${path} is cut short`, { facts: { path } });
}

function corrupt(path: string, why: string): BelljarError {
  return new BelljarError("CHECKPOINT_CORRUPT", `${path} is damaged: ${why}`, { facts: { path } });
}
