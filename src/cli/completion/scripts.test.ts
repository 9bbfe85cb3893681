/** The completion scripts in the shells themselves, at a terminal, with Tab. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { cliEnvironment, tempDir, test } from "../../../test/support/harness.ts";
import { serveFake } from "../../../test/support/served-fake.ts";
import { shells } from "./scripts.ts";

const run = promisify(execFile);
const repository = join(import.meta.dirname, "../../..");
const TIMEOUT_MS = 60_000;

for (const shell of shells) {
  test(`${shell} completes commands, options, values, names and files`, async (t) => {
    const fake = await serveFake(t);
    await fake.sandboxes.create({ image: "fake", name: "shop", container: { command: ["wait"] } });
    const [dir, home] = [await tempDir(t), await tempDir(t)];
    await writeFile(join(dir, "only-file"), "");
    const lines = [
      ["belljar ins", "belljar inspect"],
      ["belljar checkpoint ve", "belljar checkpoint verify"],
      ["belljar ps --fil", "belljar ps --filter"],
      ["belljar run --accel t", "belljar run --accel tcg"],
      ["belljar run --accel=t", "belljar run --accel=tcg"],
      ["belljar --log-level w", "belljar --log-level warn"],
      ["belljar rm sh", "belljar rm shop"],
      [`belljar --root ${dir} rm sh`, `belljar --root ${dir} rm sh`],
      [`belljar cp ${dir}/on`, `belljar cp ${dir}/only-file`],
      [`belljar exec shop cat ${dir}/on`, `belljar exec shop cat ${dir}/only-file`],
    ].flat();
    const path = [join(repository, "bin"), process.env["PATH"] ?? ""].join(delimiter);
    // Shells keep files of their own there.
    const env = { ...cliEnvironment(t), PATH: path, HOME: home, TMPDIR: home, XDG_RUNTIME_DIR: home, TERM: "xterm" };
    const program = join(repository, "test/programs/complete.zsh");
    const { stderr } = await run("zsh", ["-f", program, shell, ...lines], { cwd: dir, env, timeout: TIMEOUT_MS });
    assert.equal(stderr, "");
  });
}
