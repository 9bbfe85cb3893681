/** Logs behind the daemon: records in order; after a lost connection they go on behind the last one that came. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { api } from "../../protocol/index.ts";
import type { LogOptions, LogRecord } from "../../runtime/index.ts";
import type { DaemonLink } from "./daemon-link.ts";

export async function* readLogs(
  link: DaemonLink,
  container: { readonly sandbox: string; readonly container: string },
  options: LogOptions,
): AsyncGenerator<LogRecord> {
  const { follow = false, signal } = options;
  /** Of each stream, where what came so far ends. */
  const ends = new Map<number, bigint>();
  let sinceMs = options.sinceMs;
  let tailLines = options.tailLines;
  const request = (): MessageInitShape<typeof api.ReadLogsRequestSchema> => ({
    container,
    follow,
    ...(sinceMs === undefined ? {} : { sinceMs }),
    ...(tailLines === undefined ? {} : { tailLines }),
  });
  const answers = link.stream({ what: "logs were read", signal }, (clients, call) =>
    clients.container.readLogs(request(), call),
  );
  for await (const wire of answers) {
    const record = behind(fromRecord(wire), ends.get(wire.stream));
    if (record === undefined) continue;
    ends.set(record.stream, record.offset + BigInt(record.data.length));
    sinceMs = record.timeMs;
    tailLines = undefined;
    yield record;
  }
}

function fromRecord({ stream, timeMs, offset, data, lostBytes }: api.ReadLogsResponse): LogRecord {
  return { stream: stream === 2 ? 2 : 1, timeMs, offset, data, lostBytes };
}

/** The part of a record that has not come yet. */
function behind(record: LogRecord, end: bigint | undefined): LogRecord | undefined {
  if (end === undefined || record.offset >= end) return record;
  const known = end - record.offset;
  if (known >= BigInt(record.data.length)) return undefined;
  return { ...record, offset: end, data: record.data.subarray(Number(known)), lostBytes: 0n };
}
