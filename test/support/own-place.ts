/**
 * A directory for a program that is run by hand, and everything that is started with it: gone when the program has ended,
 * however it ends. For that the program runs twice: once as a keeper, which only waits and clears away, and once to do its work.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { endLeaks } from "./leaks.ts";

export interface OwnPlace extends AsyncDisposable {
  /** In the environment of everything that is started, as BELLJAR_TEST_ID. */
  readonly testId: string;
  readonly dir: string;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const places = new Set<OwnPlace>();
/** By which the program that does the work knows that it is the one. */
const VARIABLE = "BELLJAR_OWN_PLACE";

/**
 * To be called first of all: only the process that does the work comes back from it.
 * @param prefix short: sockets are made below the directory
 */
export async function runInOwnPlace(prefix: string, parent?: string): Promise<Pick<OwnPlace, "testId" | "dir">> {
  const [dir, testId] = [process.env[VARIABLE], process.env["BELLJAR_TEST_ID"]];
  if (dir !== undefined && testId !== undefined) return { dir, testId };
  const place = await makeOwnPlace(prefix, parent);
  const worker = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, [VARIABLE]: place.dir, BELLJAR_TEST_ID: place.testId },
  });
  const status = await new Promise<number>((resolve, reject) => {
    worker.once("error", reject);
    worker.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal ?? "SIGKILL"]));
  });
  await place[Symbol.asyncDispose]();
  // Told to end, it has ended the worker itself.
  process.exit(endStatus ?? status);
}

/** A directory of this process, which goes with all that uses it when it is disposed of, or when this process is told to end. */
export async function makeOwnPlace(prefix: string, parent = tmpdir()): Promise<OwnPlace> {
  const dir = await mkdtemp(join(parent, prefix));
  const testId = randomBytes(8).toString("hex");
  const place: OwnPlace = {
    dir,
    testId,
    [Symbol.asyncDispose]: async () => {
      await endLeaks({ dir, testId });
      await rm(dir, { recursive: true, force: true });
      places.delete(place);
      if (places.size === 0) for (const signal of SIGNALS) process.off(signal, onSignal);
    },
  };
  if (places.size === 0) for (const signal of SIGNALS) process.on(signal, onSignal);
  places.add(place);
  return place;
}

let endStatus: number | undefined;

function onSignal(signal: (typeof SIGNALS)[number]): void {
  if (endStatus !== undefined) return;
  const status = 128 + constants.signals[signal];
  endStatus = status;
  void (async () => {
    await Promise.allSettled([...places].map((place) => place[Symbol.asyncDispose]()));
    process.exit(status);
  })();
}
