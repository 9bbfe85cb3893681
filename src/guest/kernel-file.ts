/**
 * The kernel as plain ELF, out of the compressed form in which its package has it (bzImage): QEMU starts it at its PVH entry.
 * To decompress 53 MB is a third of a second in an emulated guest and nothing here.
 *
 * Where the payload lies is told in the image's header; see Documentation/x86/boot.rst of Linux, fields `setup_sects`, `header`,
 * `payload_offset` and `payload_length`.
 */
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { BelljarError, runTool } from "../base/index.ts";

const SECTOR_BYTES = 512;
const SETUP_SECTORS = 0x1f1;
const HEADER_MAGIC = 0x202;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const HEADER_BYTES = 0x250;
/** lz4's legacy frame, the one that the kernel's build makes; Debian's kernels have it. */
const LZ4_MAGIC = Buffer.from([0x02, 0x21, 0x4c, 0x18]);
const DECOMPRESS_TIMEOUT_MS = 60_000;

export interface KernelPayload {
  readonly data: Buffer;
  /** Of the ELF file that comes out. */
  readonly sizeBytes: number;
}

/** @throws BelljarError `GUEST_BUILD_FAILED` when the file is no bzImage with an lz4 payload */
export function kernelPayload(image: Buffer, name: string): KernelPayload {
  if (image.length < HEADER_BYTES || image.toString("latin1", HEADER_MAGIC, HEADER_MAGIC + 4) !== "HdrS") {
    throw malformed(name, "it is not a bzImage");
  }
  const start = ((image[SETUP_SECTORS] || 4) + 1) * SECTOR_BYTES + image.readUInt32LE(PAYLOAD_OFFSET);
  // The build puts the size of the result behind the compressed data.
  const end = start + image.readUInt32LE(PAYLOAD_LENGTH) - 4;
  if (end > image.length - 4 || end <= start) throw malformed(name, "its payload lies outside of it");
  const data = image.subarray(start, end);
  if (!data.subarray(0, LZ4_MAGIC.length).equals(LZ4_MAGIC)) {
    throw malformed(name, "its payload is not compressed with lz4");
  }
  return { data, sizeBytes: image.readUInt32LE(end) };
}

/** @throws BelljarError `GUEST_BUILD_FAILED`, `HOST_TOOL_MISSING` (lz4), `HOST_TOOL_FAILED`, `CANCELLED`; the target is removed then */
export async function writeKernel(imagePath: string, targetPath: string, signal?: AbortSignal): Promise<void> {
  const payload = kernelPayload(await readFile(imagePath), imagePath);
  const packed = `${targetPath}.lz4`;
  try {
    await writeFile(packed, payload.data);
    await runTool("lz4", ["-q", "-d", "-f", packed, targetPath], { signal, timeoutMs: DECOMPRESS_TIMEOUT_MS });
    const { size } = await stat(targetPath);
    if (size !== payload.sizeBytes) {
      throw malformed(imagePath, `its payload has ${size} bytes and not the ${payload.sizeBytes} it is said to have`);
    }
  } catch (error) {
    await rm(targetPath, { force: true });
    throw error;
  } finally {
    await rm(packed, { force: true });
  }
}

function malformed(name: string, problem: string): BelljarError {
  return new BelljarError("GUEST_BUILD_FAILED", `the kernel ${name} cannot be used: ${problem}`, {
    facts: { file: name },
  });
}
