#!/usr/bin/env node
/**
 * belljard, the program: what a client starts in the background when there is no daemon. It is told every path, and reads no
 * environment. `belljar daemon run` does the same in the foreground.
 */
import { parseArgs } from "node:util";
import { apiLimits, BelljarError, createLog, goBeforeGuests, logLevels, messageChain } from "../base/index.ts";
import { serveDaemon } from "./daemon.ts";
import { Host } from "./host.ts";
import { LogFile } from "./log-file.ts";
import { ROOT_LOCKED_STATUS } from "./places.ts";
import { stopOnSignals } from "./signals.ts";

const FAILED_STATUS = 125;

const { values } = parseArgs({
  options: {
    root: { type: "string" },
    run: { type: "string" },
    guest: { type: "string" },
    templates: { type: "string" },
    cache: { type: "string" },
    /** VMs that wait for the next sandboxes. */
    pool: { type: "string", default: "0" },
    /** VMMs that wait for the next copies. */
    spares: { type: "string", default: "0" },
    /** What standard error was opened on, if it is a file that may be put aside. */
    "log-file": { type: "string" },
    "log-level": { type: "string", default: "info" },
    /** End when nobody needs this daemon any more. */
    "on-demand": { type: "boolean", default: false },
  },
});

const level = logLevels.find((each) => each === values["log-level"]) ?? "info";
const append = (line: string): void => void process.stderr.write(line);
const logFile = values["log-file"];
const write = logFile === undefined ? append : new LogFile({ path: logFile, append }).write;
const log = createLog({ level, json: false, write });

function given(name: "root" | "run" | "guest" | "templates" | "cache"): string {
  const value = values[name];
  if (value !== undefined) return value;
  throw new BelljarError("INVALID_ARGUMENT", `--${name} is missing`);
}

try {
  goBeforeGuests();
  const paths = {
    root: given("root"),
    run: given("run"),
    guest: given("guest"),
    templates: given("templates"),
    cache: given("cache"),
  };
  const host = new Host({ paths, log, poolSize: Number(values.pool), spareCount: Number(values.spares) });
  const daemon = await serveDaemon({
    root: paths.root,
    runDir: paths.run,
    log,
    openRuntime: () => host.openRuntime(),
    idleExitMs: values["on-demand"] ? apiLimits.idleExitMs : undefined,
  });
  using _signals = stopOnSignals(daemon);
  await daemon.stopped;
} catch (thrown) {
  const error = BelljarError.from(thrown);
  const isSecond = error.reason === "ROOT_LOCKED";
  // Whoever started this one talks to the other one: nothing has failed.
  if (isSecond) log.info("another process owns the root; nothing to do");
  else log.error(messageChain(error).join(": "), { reason: error.reason });
  process.exitCode = isSecond ? ROOT_LOCKED_STATUS : FAILED_STATUS;
}
