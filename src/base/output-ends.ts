/** Where the output ends that a container had written before an instant. */
export interface OutputPart {
  readonly stream: 1 | 2;
  readonly timeMs: number;
  readonly offset: bigint;
  readonly data: Uint8Array;
}

export interface OutputEnds {
  readonly stdoutOffset: bigint;
  readonly stderrOffset: bigint;
}

export async function outputUntil(parts: AsyncIterable<OutputPart>, atMs: number): Promise<OutputEnds> {
  const ends = { 1: 0n, 2: 0n };
  for await (const { stream, offset, data, timeMs } of parts) {
    if (timeMs < atMs) ends[stream] = offset + BigInt(data.length);
  }
  return { stdoutOffset: ends[1], stderrOffset: ends[2] };
}
