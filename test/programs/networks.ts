/**
 * Makes, removes and sweeps networks in the network namespace that it runs in, as the owner of a root would: what is planned is in files
 * of the root, by id. Prints JSON. Arguments:
 * `make ROOT ID SETTINGS`; `make-prepared ROOT ID SETTINGS` in a place that was prepared for it; `make-otherwise ROOT ID SETTINGS` in one
 * that was prepared for another; `make-ahead ROOT ID SETTINGS`, which begins to before it is asked for; `give-up ROOT ID SETTINGS`, which
 * prepares a place for nobody; `remove ROOT ID`; `denied ROOT ID`; `sweep ROOT`; `recover ROOT`, which removes what was half made or half
 * removed. `KILL_AT` ends it at a step, as `PHASE STEP-NUMBER`, and `SHOW_STEPS` lists the steps on standard error.
 */
import { subscribe } from "node:diagnostics_channel";
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, decodeField, messageChain, STEP_CHANNEL, type Step } from "../../src/base/index.ts";
import {
  decodeNetworkSettings,
  decodeNetworkState,
  expectedNetwork,
  type NetworkSettings,
  type NetworkState,
  openNetworks,
} from "../../src/network/index.ts";

const [verb, root = "", id = "", text = "{}"] = process.argv.slice(2);
const networks = openNetworks({ rootDir: root });
const path = (of: string): string => join(root, `${of}.planned`);

async function read(of: string): Promise<NetworkState> {
  return decodeNetworkState(decodeField(JSON.parse(await readFile(path(of), "utf8")), of, "STATE_CORRUPT"));
}

/** Whole or not at all: it may be killed in the middle. */
async function write(of: string, state: NetworkState): Promise<void> {
  await writeFile(`${path(of)}.new`, JSON.stringify(state));
  await rename(`${path(of)}.new`, path(of));
}

const [phase, stepNumber] = (process.env["KILL_AT"] ?? "").split(" ");
const isStep = (message: unknown): message is Step =>
  typeof message === "object" && message !== null && "phase" in message;
subscribe(STEP_CHANNEL, (message) => {
  if (!isStep(message)) return;
  const { kind, name, number } = message;
  if (process.env["SHOW_STEPS"] !== undefined && message.phase === "before") {
    process.stderr.write(`step ${number} ${kind} ${name}\n`);
  }
  if (String(number) !== stepNumber) return;
  if (message.phase === phase) process.kill(process.pid, "SIGKILL");
  // While the step is being done.
  if (phase === "during" && message.phase === "before") setTimeout(() => process.kill(process.pid, "SIGKILL"), 3);
});

const known = (await readdir(root)).filter((name) => name.endsWith(".planned")).map((name) => name.slice(0, 12));
for (const each of known) networks.adopt(await read(each));

function settingsOf(json: string): NetworkSettings {
  return decodeNetworkSettings(decodeField(JSON.parse(json), "settings", "INVALID_ARGUMENT"));
}

async function prepare(settings: NetworkSettings): Promise<void> {
  const expected = expectedNetwork(settings);
  if (expected === undefined) throw new Error("nothing can be prepared in a namespace of somebody else's");
  await networks.prepare(id, expected, root, new AbortController().signal);
}

try {
  switch (verb) {
    case "give-up":
      await prepare(settingsOf(text));
      await networks.giveUp(id);
      break;
    case "make-ahead":
    case "make-otherwise":
    case "make-prepared":
    case "make": {
      const settings = settingsOf(text);
      const { policy } = settings;
      if (verb === "make-otherwise") await prepare({ ...settings, policy: { ...policy, default: "open" }, ports: [] });
      else if (verb !== "make") await prepare(settings);
      if (verb === "make-ahead") networks.openAhead([id], settings);
      const state = await networks.plan(id, settings);
      await write(id, state);
      const onUplink = async (made: NetworkState): Promise<void> => await write(id, made);
      await networks.make(state, settings, { runDir: root, onUplink });
      await writeFile(join(root, `${id}.made`), "");
      process.stdout.write(`${JSON.stringify(state)}\n`);
      break;
    }
    case "denied":
      process.stdout.write(`${await networks.denied(await read(id))}\n`);
      break;
    case "remove":
      await rm(join(root, `${id}.made`), { force: true });
      await networks.remove(await read(id));
      await rm(path(id));
      break;
    case "recover": {
      const made = new Set(
        (await readdir(root)).filter((name) => name.endsWith(".made")).map((name) => name.slice(0, 12)),
      );
      for (const each of known.filter((name) => !made.has(name))) {
        await networks.remove(await read(each));
        await rm(path(each));
      }
      process.stdout.write(`${JSON.stringify(await networks.sweep(made))}\n`);
      break;
    }
    default:
      process.stdout.write(`${JSON.stringify(await networks.sweep(new Set(known)))}\n`);
  }
} catch (error) {
  // One line, for whoever reads the end of what this printed.
  process.stderr.write(
    `${error instanceof BelljarError ? `${error.reason}: ${messageChain(error).join(": ")}` : error}\n`,
  );
  process.exitCode = 1;
}
