/** Finds Ctrl-P Ctrl-Q in what is typed, and keeps it from the process; a Ctrl-P followed by anything else goes through. */

const CTRL_P = 0x10;
const CTRL_Q = 0x11;

export class DetachKeys {
  #isHalf = false;
  #isComplete = false;

  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** What of the bytes is the process's. */
  take(bytes: Uint8Array): Uint8Array {
    const passed: number[] = [];
    for (const byte of bytes) {
      if (this.#isComplete) break;
      if (this.#isHalf && byte === CTRL_Q) {
        this.#isComplete = true;
        break;
      }
      if (this.#isHalf) passed.push(CTRL_P);
      this.#isHalf = byte === CTRL_P;
      if (!this.#isHalf) passed.push(byte);
    }
    return Uint8Array.from(passed);
  }
}
