/** One client: operations on sandboxes chosen at random, one after the other, each of them entered in the ledger. */
import { setTimeout as sleep } from "node:timers/promises";
import { apiLimits, BelljarError, newId } from "../../src/base/index.ts";
import type { ConnectedRuntime, SandboxHandle } from "../../src/sdk/index.ts";
import type { Random } from "../support/random.ts";
import type { Ledger } from "./ledger.ts";

/** Where `exec` writes its words. */
export const JOURNAL = "/journal";
/** An operation that has not ended by then is lost: its caller has had no answer. Each of its calls, three at most, may be repeated for so long. */
const LOST_MS = 3 * (apiLimits.repeatTimeoutMs + apiLimits.callTimeoutMs);
const FILE_BYTES = 20_000;

export interface ClientDeps {
  readonly runtime: ConnectedRuntime;
  readonly sandboxes: readonly SandboxHandle[];
  readonly ledger: Ledger;
  readonly random: Random;
  /** How many may be forked or checkpointed at once, by all clients together. */
  readonly heavy: { free: number };
  /** Names of copies and checkpoints that may be there. */
  readonly mayExist: Set<string>;
  readonly signal: AbortSignal;
}

export async function runClient(deps: ClientDeps): Promise<void> {
  const { random, ledger, signal, heavy } = deps;
  while (!signal.aborted) {
    const sandbox = random.pick(deps.sandboxes as [SandboxHandle, ...SandboxHandle[]]);
    const dice = random.below(100);
    const isHeavy = dice >= 92 && heavy.free > 0;
    const [name, operation] =
      dice < 50
        ? (["exec", exec] as const)
        : dice < 75
          ? (["files", files] as const)
          : !isHeavy
            ? (["logs", logs] as const)
            : dice < 97
              ? (["checkpoint", checkpoint] as const)
              : (["fork", fork] as const);
    if (isHeavy) heavy.free -= 1;
    const late = AbortSignal.timeout(LOST_MS);
    const lost = new Promise<never>((_, reject) => late.addEventListener("abort", () => reject(new Error("LOST"))));
    lost.catch(() => {});
    try {
      await Promise.race([operation(sandbox, deps), lost]);
      ledger.count(name, sandbox.name);
    } catch (thrown) {
      if (late.aborted) ledger.violate(`${name} on ${sandbox.name} had no answer after ${LOST_MS} ms`);
      const error = BelljarError.from(thrown);
      ledger.count(name, sandbox.name, error);
      if (error.reason === "INTERNAL") ledger.violate(`${name} on ${sandbox.name}: ${error.message}`);
      // Whoever is told that there is no daemon looks again in a moment.
      await sleep(random.below(500));
    } finally {
      if (isHeavy) heavy.free += 1;
    }
  }
}

async function exec(sandbox: SandboxHandle, { ledger }: ClientDeps): Promise<void> {
  const word = newId();
  ledger.mayBeWritten(sandbox.id, word);
  const { exitCode, stdout } = await sandbox.exec(["sh", "-c", `echo $0 >> ${JOURNAL}; echo $0`, word]);
  ledger.written(sandbox.id, word);
  if (exitCode !== 0 || stdout !== `${word}\n`)
    ledger.violate(`exec answered ${exitCode} and ${JSON.stringify(stdout)}`);
}

async function files(sandbox: SandboxHandle, { ledger }: ClientDeps): Promise<void> {
  const path = `/file-${newId()}`;
  const content = newId().repeat(FILE_BYTES / 12);
  await sandbox.files.write(path, content);
  const found = Buffer.from(await sandbox.files.read(path)).toString();
  if (found !== content) ledger.violate(`a file of ${sandbox.name} has ${found.length} bytes that were not written`);
  await sandbox.files.remove(path);
}

/** The first process counts. */
async function logs(sandbox: SandboxHandle, { ledger }: ClientDeps): Promise<void> {
  let text = "";
  for await (const { data } of sandbox.main.logs({ tailLines: 50 })) text += Buffer.from(data).toString();
  checkCounting(text, sandbox.name, ledger);
}

export function checkCounting(text: string, name: string, ledger: Ledger): void {
  const numbers = text.split("\n").slice(0, -1).map(Number);
  const gap = numbers.findIndex((number, index) => index > 0 && number !== (numbers[index - 1] ?? 0) + 1);
  if (gap !== -1) ledger.violate(`${name} counted ${numbers[gap]} after ${numbers[gap - 1]}`);
}

async function checkpoint(sandbox: SandboxHandle, { runtime, mayExist }: ClientDeps): Promise<void> {
  const name = `c-${newId()}`;
  mayExist.add(name);
  await sandbox.checkpoint({ name });
  const { source } = await runtime.checkpoints.get(name);
  if (source.id !== sandbox.id) throw new Error("a checkpoint of another sandbox");
  await runtime.checkpoints.remove(name);
  mayExist.delete(name);
}

async function fork(sandbox: SandboxHandle, { mayExist, ledger }: ClientDeps): Promise<void> {
  const name = `f-${newId()}`;
  mayExist.add(name);
  const before = ledger.known(sandbox.id);
  const [copy] = await sandbox.fork({ name });
  if (copy === undefined) throw new Error("a fork that is none");
  const journal = Buffer.from(await copy.files.read(JOURNAL))
    .toString()
    .split("\n");
  const lost = before.find((word) => !journal.includes(word));
  if (lost !== undefined) ledger.violate(`a fork of ${sandbox.name} has no ${lost}, which had been done before`);
  await copy.delete({ force: true });
  mayExist.delete(name);
}
