/** A program that is run by hand, has started another one, made a file, and works on: or ends as HOW says. */
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runInOwnPlace } from "../../support/own-place.ts";

const { dir } = await runInOwnPlace("op-");
await writeFile(join(dir, "file"), "");
spawn("sleep", ["300"], { stdio: "ignore", detached: true }).unref();
process.stdout.write(`${dir}\n`);
if (process.env["HOW"] === "throw") throw new Error("it failed");
if (process.env["HOW"] === "exit") process.exit(3);
setInterval(() => {}, 1_000);
