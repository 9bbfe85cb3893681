/** The tour: a program that counts in its memory is run, checkpointed, forked and restored, and each copy goes on counting where it was. */
import { type LogRecord, Runtime, resolvePaths, type SandboxHandle } from "../src/sdk/index.ts";

/** Every line has the number and the host name, which each copy has of its own: it tells which lines are whose. */
const COUNTING = "n=0; while :; do n=$((n+1)); read h </proc/sys/kernel/hostname; echo $n $h; sleep 0.1; done";
/** For a copy's first line; a slow host needs seconds for what takes milliseconds elsewhere. */
const LINE_TIMEOUT_MS = 60_000;
const FORKS = 3;

/** Leaves nothing, also when `signal` ends it. */
export async function tour(signal: AbortSignal): Promise<void> {
  const paths = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  await using runtime = await Runtime.connect({ paths, signal });
  await using made = new AsyncDisposableStack();

  const config = { image: "busybox", container: { command: ["sh", "-c", COUNTING] } };
  const source = await timed("run", () => runtime.sandboxes.create(config, { signal }));
  made.use(source);
  tell(`it says ${await firstNumber(source, signal)}`);

  const checkpoint = await timed("checkpoint", () => source.checkpoint({ signal }));
  made.defer(async () => void (await runtime.checkpoints.remove(checkpoint.id)));
  const kilobytes = Math.round((checkpoint.pagesBytes + checkpoint.devicesBytes + checkpoint.disksBytes) / 1000);
  tell(`${kilobytes} kB; the program stood still for ${Math.round(checkpoint.frozenMs)} ms`);

  const forks = await timed(`fork ${FORKS} ways`, () => source.fork({ count: FORKS, signal }));
  for (const fork of forks) made.use(fork);
  const numbers = await Promise.all(forks.map((fork) => firstNumber(fork, signal)));
  tell(`they go on with ${numbers.join(", ")}`);

  const restored = await timed("restore", () => runtime.checkpoints.restore(checkpoint.id, { signal }));
  made.use(restored);
  tell(`it goes on with ${await firstNumber(restored, signal)}`);
}

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const beganMs = performance.now();
  const value = await work();
  const tookMs = Math.round(performance.now() - beganMs);
  process.stdout.write(`  ${what.padEnd(12)} ${`${tookMs} ms`.padStart(9)}   `);
  return value;
}

function tell(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** The number on the first line that this sandbox itself has written. */
async function firstNumber(sandbox: SandboxHandle, signal: AbortSignal): Promise<string> {
  const { hostname } = await sandbox.info();
  const either = AbortSignal.any([signal, AbortSignal.timeout(LINE_TIMEOUT_MS)]);
  for await (const line of linesOf(sandbox.main.logs({ follow: true, signal: either }))) {
    const [number = "", writer] = line.split(" ");
    if (writer === hostname) return number;
  }
  throw new Error(`${sandbox.name} ended before it wrote a line`);
}

async function* linesOf(records: AsyncIterable<LogRecord>): AsyncGenerator<string> {
  let text = "";
  for await (const { data } of records) {
    const lines = (text + Buffer.from(data).toString()).split("\n");
    text = lines.pop() ?? "";
    yield* lines;
  }
}
