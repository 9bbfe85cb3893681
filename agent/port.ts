/**
 * The byte stream between guest and host: a virtio-serial port. It can be opened only once at a time, and a pending read keeps it
 * open, so there is one descriptor and one read loop for the agent's whole life.
 *
 * A read answers nothing at once while no host is connected: another program waits until one is (host-wait.ts). A write waits by itself.
 * Bytes that one host left behind come out when the next one is there: where a connection begins is for the handshake to say.
 */
import { type FileHandle, open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError } from "../src/base/errors.ts";
import { AGENT_PORT } from "../src/protocol/ports.ts";
import { HostWait } from "./host-wait.ts";

/** What the host sends comes in pages; several are there when it sends much. */
const READ_BYTES = 64 * 1024;
/** What the kernel's driver takes in one piece, and how many pieces one call may have. */
const SLICE_BYTES = 32 * 1024;
const SLICES_MAX = 256;

/** Finds the port by its name in sysfs; there is no udev in the guest that would make links. Undefined without one. */
export async function openPort(name: string, sysDir = "/sys", devDir = "/dev"): Promise<FileHandle | undefined> {
  const ports = join(sysDir, "class/virtio-ports");
  for (const entry of await readdir(ports)) {
    const found = await readFile(join(ports, entry, "name"), "utf8").catch(() => "");
    if (found.trim() === name) return await open(join(devDir, entry), "r+");
  }
  return undefined;
}

export interface Port {
  /** The next bytes, valid until the next call; empty when the host has gone away, once each time. */
  read(): Promise<Buffer>;
  /** Writes all of it; waits as long as the host takes nothing. */
  write(bytes: Uint8Array): Promise<void>;
}

export class VirtioPort implements Port {
  readonly #handle: FileHandle;
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  readonly #host: HostWait;
  #isAbsent = false;

  private constructor(handle: FileHandle, host: HostWait) {
    this.#handle = handle;
    this.#host = host;
  }

  /** @throws BelljarError `AGENT_FAILED` when the VM has no such port */
  static async open(name = AGENT_PORT, sysDir = "/sys", devDir = "/dev"): Promise<VirtioPort> {
    const handle = await openPort(name, sysDir, devDir);
    if (handle !== undefined) return new VirtioPort(handle, HostWait.start(handle));
    throw new BelljarError("AGENT_FAILED", `the VM has no virtio-serial port named ${name}`);
  }

  async read(): Promise<Buffer> {
    for (;;) {
      if (this.#isAbsent) await this.#host.wait();
      const { bytesRead } = await this.#handle.read(this.#buffer, 0, this.#buffer.length, null);
      const wasThere = !this.#isAbsent;
      this.#isAbsent = bytesRead === 0;
      if (bytesRead > 0) {
        this.#host.hasCome();
        return this.#buffer.subarray(0, bytesRead);
      }
      if (wasThere) return this.#buffer.subarray(0, 0);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      // The driver takes so much at a time; in slices of that size one call brings out many.
      const slices: Uint8Array[] = [];
      for (let at = 0; at < rest.length && slices.length < SLICES_MAX; at += SLICE_BYTES) {
        slices.push(rest.subarray(at, at + SLICE_BYTES));
      }
      const { bytesWritten } = await this.#handle.writev(slices);
      rest = rest.subarray(bytesWritten);
    }
  }
}
