/**
 * Makes, removes and sweeps networks in the network namespace that it runs in, as the owner of a root would: what is planned is in files
 * of the root, by id. Arguments: `make ROOT ID SETTINGS`, `remove ROOT ID`, `denied ROOT ID`, `sweep ROOT`; prints JSON.
 */
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, decodeField, messageChain } from "../../src/base/index.ts";
import { decodeNetworkSettings, decodeNetworkState, type NetworkState, openNetworks } from "../../src/network/index.ts";

const [verb, root = "", id = "", text = "{}"] = process.argv.slice(2);
const networks = openNetworks({ rootDir: root });
const path = (of: string): string => join(root, `${of}.planned`);

async function read(of: string): Promise<NetworkState> {
  return decodeNetworkState(decodeField(JSON.parse(await readFile(path(of), "utf8")), of, "STATE_CORRUPT"));
}

const known = (await readdir(root)).filter((name) => name.endsWith(".planned")).map((name) => name.slice(0, 12));
for (const each of known) networks.adopt(await read(each));

try {
  switch (verb) {
    case "make": {
      const settings = decodeNetworkSettings(decodeField(JSON.parse(text), "settings", "INVALID_ARGUMENT"));
      const state = await networks.plan(id, settings);
      await writeFile(path(id), JSON.stringify(state));
      await networks.make(state, settings, { runDir: root, onUplink: async () => {} });
      process.stdout.write(`${JSON.stringify(state)}\n`);
      break;
    }
    case "denied":
      process.stdout.write(`${await networks.denied(await read(id))}\n`);
      break;
    case "remove":
      await networks.remove(await read(id));
      await rm(path(id));
      break;
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
