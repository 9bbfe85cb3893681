/** The examples of docs/guides, run as they stand there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cliEnvironment, tempDir, test } from "../support/harness.ts";

const run = promisify(execFile);
const repository = join(import.meta.dirname, "../..");

test(
  "the commands of the guide to storage and devices do what it says",
  async (t) => {
    const guide = await readFile(join(repository, "docs/guides/storage-and-devices.md"), "utf8");
    const commands = [...guide.matchAll(/^\$ (.*)$/gm)].map(([, command = ""]) => command);
    assert.ok(commands.length > 20);
    const env = cliEnvironment(t);
    const options = {
      cwd: await tempDir(t),
      env: { ...env, PATH: `${join(repository, "bin")}:${env["PATH"] ?? ""}:/usr/sbin:/sbin` },
    };
    const outputs = new Map<string, string[]>();
    for (const command of commands) {
      const { stdout } = await run("sh", ["-c", command], options);
      outputs.set(command, [...(outputs.get(command) ?? []), stdout]);
    }
    const output = (start: string): string =>
      [...outputs].find(([command]) => command.startsWith(start))?.[1].join("") ?? "";
    const [before, after] = outputs.get("belljar exec store df -h /") ?? [];
    assert.notEqual(before, after);
    assert.equal(output("belljar run --rm -v data:/data:ro"), "kept\n");
    assert.match(output("belljar volume ls"), /^data /m);
    assert.equal(output("cat tree/answer"), "back\n");
    assert.equal(output("cat tree/file"), "hello\n");
    assert.match(output("belljar run --rm --mount type=disk,source=$PWD/disk.img,target=/mnt,readonly"), /^file$/m);
    assert.match(output("belljar device ls jar"), /disk\.img \(read-only\)/);
    assert.ok(Number(/\d+/.exec(output("belljar exec grown"))?.[0]) > 400_000);
  },
  { timeoutMs: 300_000 },
);
