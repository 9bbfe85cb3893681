/**
 * Memory of other processes, moved by the two system calls that are made for it, process_vm_readv(2) and process_vm_writev(2): many places in
 * one call, each page copied once. Through /proc/PID/mem each is copied twice, and alone (docs/decisions/native-calls.md).
 */
import { constants } from "node:os";
import koffi from "koffi";
import { BelljarError } from "../../base/index.ts";
import type { Place } from "./halves.ts";
import { PAGE_BYTES, type PageRuns } from "./page-runs.ts";

/** What one call takes at most (IOV_MAX of Linux). */
const PLACES_PER_CALL = 1024;
const NO_FLAGS = 0;

/** Answers bytes moved, fewer than asked for where a place was not to be had; below 0 when the first was not: errno says why. */
type MoveCall = (
  pid: number,
  local: BigUint64Array,
  localCount: number,
  remote: BigUint64Array,
  remoteCount: number,
  flags: number,
) => unknown;

const parameters = "int pid, void *local, ulong local_count, void *remote, ulong remote_count, ulong flags";
const libc = koffi.load(null);
const readv: MoveCall = libc.func(`int64_t process_vm_readv(${parameters})`);
const writev: MoveCall = libc.func(`int64_t process_vm_writev(${parameters})`);

/** Runs of pages of a process, from the first byte to the last. */
export class ProcessPages {
  readonly #pid: number;
  readonly #parts: readonly ProcessPart[];
  /** What comes next: of which part, which run (its index in the pairs), how many bytes of it have been moved. */
  #part = 0;
  #run = 0;
  #moved = 0;
  /** Pairs of address and bytes, as `struct iovec`. */
  readonly #local = new BigUint64Array(2);
  readonly #remote = new BigUint64Array(2 * PLACES_PER_CALL);

  constructor(pid: number, parts: readonly ProcessPart[]) {
    this.#pid = pid;
    this.#parts = parts;
  }

  /**
   * Moves what comes next into a buffer: no more than there is `room` for from `from` on. Answers bytes, 0 after the last.
   * @throws BelljarError `VMM_DIED` when the process or its memory is gone, `PERMISSION_DENIED`
   */
  read(buffer: Buffer, from: number, room: number): number {
    return this.#move("process_vm_readv", readv, buffer, from, room);
  }

  /** Moves bytes of a buffer to what comes next; otherwise as `read`. */
  write(buffer: Buffer, from: number, bytes: number): number {
    return this.#move("process_vm_writev", writev, buffer, from, bytes);
  }

  #move(name: string, call: MoveCall, buffer: Buffer, from: number, room: number): number {
    const { count, bytes } = this.#list(room);
    if (bytes === 0) return 0;
    this.#local[0] = koffi.address(buffer) + BigInt(from);
    this.#local[1] = BigInt(bytes);
    const moved = Number(call(this.#pid, this.#local, 1, this.#remote, count, NO_FLAGS));
    if (!(moved > 0)) throw failure(name, this.#pid, koffi.errno());
    this.#advance(moved);
    return moved;
  }

  /** Fills the list of places of the process. */
  #list(room: number): { readonly count: number; readonly bytes: number } {
    let count = 0;
    let bytes = 0;
    let skipped = this.#moved;
    let run = this.#run;
    for (let part = this.#part; part < this.#parts.length; part += 1, run = 0) {
      const { address, runs } = this.#parts[part] ?? NOTHING;
      for (; run < runs.length; run += 2, skipped = 0) {
        if (count === PLACES_PER_CALL || bytes === room) return { count, bytes };
        const length = Math.min(room - bytes, (runs[run + 1] ?? 0) * PAGE_BYTES - skipped);
        this.#remote[2 * count] = BigInt(address + (runs[run] ?? 0) * PAGE_BYTES + skipped);
        this.#remote[2 * count + 1] = BigInt(length);
        count += 1;
        bytes += length;
      }
    }
    return { count, bytes };
  }

  #advance(moved: number): void {
    this.#moved += moved;
    for (; this.#part < this.#parts.length; this.#part += 1, this.#run = 0) {
      const { runs } = this.#parts[this.#part] ?? NOTHING;
      for (; this.#run < runs.length; this.#run += 2) {
        const length = (runs[this.#run + 1] ?? 0) * PAGE_BYTES;
        if (this.#moved < length) return;
        this.#moved -= length;
      }
    }
  }
}

export interface ProcessPart extends Pick<Place, "address"> {
  readonly runs: PageRuns;
}

const NOTHING: ProcessPart = { address: 0, runs: new Uint32Array(0) };

function failure(name: string, pid: number, errno: number): BelljarError {
  const { ESRCH, EFAULT, EPERM } = constants.errno;
  const what = `${name} of process ${pid}: error ${errno}`;
  if (errno === ESRCH || errno === EFAULT) return new BelljarError("VMM_DIED", `the VM's memory is gone: ${what}`);
  if (errno !== EPERM) return new BelljarError("INTERNAL", `the guest's memory could not be moved: ${what}`);
  return new BelljarError(
    "PERMISSION_DENIED",
    `the VM's memory cannot be reached, which root or the VM's user may: ${what}`,
  );
}
