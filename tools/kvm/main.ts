/** `node tools/kvm/main.ts SECONDS COMMAND...`: runs a command where KVM works; its output and exit status are ours. */
import { join } from "node:path";
import { runUnderKvm } from "./machine.ts";

const [seconds, ...command] = process.argv.slice(2);
if (seconds === undefined || !/^\d+$/.test(seconds) || command.length === 0) {
  process.stderr.write("usage: main.ts SECONDS COMMAND...\n");
  process.exit(125);
}
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
const { exitCode } = await runUnderKvm({
  command,
  workingDirectory: process.cwd(),
  timeoutMs: Number(seconds) * 1000,
  cacheDir: join(import.meta.dirname, "../../.cache/kvm"),
  signal: stop.signal,
  onOutput: (text) => process.stdout.write(text),
});
if (exitCode === undefined) {
  process.stderr.write(stop.signal.aborted ? "interrupted\n" : `the command did not end within ${seconds} s\n`);
}
process.exitCode = exitCode ?? 124;
