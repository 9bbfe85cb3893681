/** Output of a container's first process for one handle: read from the log, one reading of a stream after the other. */
import type { OutputCursor, Outputs } from "../container/index.ts";
import type { OutputPiece, OutputRequest } from "./interface.ts";

export class FirstOutput {
  readonly #outputs: Outputs;
  readonly #containerId: string;
  readonly #offsets: { readonly 1: bigint; readonly 2: bigint };
  /** Made at the first reading: who does not read a stream does not hold it up. */
  readonly #cursors = new Map<1 | 2, Promise<OutputCursor>>();
  readonly #turns = new Map<1 | 2, Promise<unknown>>();

  constructor(outputs: Outputs, containerId: string, offsets: { readonly 1: bigint; readonly 2: bigint }) {
    this.#outputs = outputs;
    this.#containerId = containerId;
    this.#offsets = offsets;
  }

  read(request: OutputRequest, signal: AbortSignal | undefined): Promise<OutputPiece> {
    const { stream } = request;
    const turn = (this.#turns.get(stream) ?? Promise.resolve()).then(() => this.#read(request, signal));
    this.#turns.set(
      stream,
      turn.catch(() => {}),
    );
    return turn;
  }

  /** From now on the process does not wait for this handle. */
  async detach(): Promise<void> {
    for (const cursor of this.#cursors.values()) await this.#outputs.detach(this.#containerId, await cursor);
  }

  async #read(request: OutputRequest, signal: AbortSignal | undefined): Promise<OutputPiece> {
    const { stream, offset, maxBytes, waitMs } = request;
    let opening = this.#cursors.get(stream);
    if (opening === undefined) {
      opening = this.#outputs.attach(this.#containerId, stream, this.#offsets[stream]);
      this.#cursors.set(stream, opening);
    }
    const cursor = await opening;
    if (request.detach === true) {
      await this.#outputs.detach(this.#containerId, cursor);
      return { offset, data: new Uint8Array(0), end: false };
    }
    const piece = await cursor.read({ offset, maxBytes, waitMs, signal });
    if (piece.end) await this.#outputs.detach(this.#containerId, cursor);
    return piece;
  }
}
