/** The last step of `npm start`: a real program in a container in a VM, the proof that it is one, and the tour. */
import { readFile } from "node:fs/promises";
import { release } from "node:os";
import { join } from "node:path";
import { BelljarError, messageChain } from "../src/base/index.ts";
import { repository, runCommand } from "./command.ts";

const NEXT = `Next:
  bin/belljar run busybox sh -c 'echo hello from $(hostname)'
  bin/belljar run node -e 'console.log(process.version)'
  bin/belljar run -it busybox sh
  bin/belljar checkpoint --help
  bin/belljar doctor        what this host can do
  bin/belljar --help        all commands
  npm test                  every test
`;

const BOOT_ID = "/proc/sys/kernel/random/boot_id";

export async function start(): Promise<number> {
  process.stdout.write("belljar: running busybox in a container in a VM\n");
  const command = ["sh", "-c", `uname -r; cat ${BOOT_ID}`];
  const { status, output } = await runCommand(join(repository, "bin/belljar"), ["run", "--rm", "busybox", ...command], {
    capture: true,
  });
  const [kernel = "", bootId = ""] = output.trim().split("\n").slice(-2);
  const hostBootId = (await readFile(BOOT_ID, "utf8")).trim();
  // The releases may be the same by chance; two kernels never have one boot id.
  if (status !== 0 || !/^[0-9a-f-]{36}$/.test(bootId) || bootId === hostBootId) {
    process.stderr.write(`${output}belljar: the container did not run in a VM (status ${status})\n`);
    return status === 0 ? 1 : status;
  }
  process.stdout.write(`  this host's kernel:      ${release()}, boot ${hostBootId}\n`);
  process.stdout.write(`  the container's kernel:  ${kernel}, boot ${bootId}\n`);
  process.stdout.write("belljar: a tour, with a program that counts\n");
  if (!(await takeTour())) return 1;
  process.stdout.write(`\n${NEXT}`);
  return 0;
}

/** Ctrl-C ends it, and what it has made goes first. */
async function takeTour(): Promise<boolean> {
  const stop = new AbortController();
  const onSignal = (): void => stop.abort(new BelljarError("CANCELLED", "interrupted"));
  process.once("SIGINT", onSignal).once("SIGTERM", onSignal);
  try {
    const { tour } = await import("./tour.ts");
    await tour(stop.signal);
    return true;
  } catch (error) {
    process.stderr.write(`belljar: the tour failed: ${messageChain(error).join(": ")}\n`);
    return false;
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}
