import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "./harness.ts";
import { findLeaks } from "./leaks.ts";

const PROGRAM = join(import.meta.dirname, "../programs/leaks/interrupted.ts");

for (const [how, status] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["throw", 1],
  ["exit", 3],
] as const) {
  test(`a program run by hand leaves nothing when it ends by ${how}`, async (t) => {
    const env = { PATH: process.env["PATH"] ?? "", TMPDIR: t.dir, HOW: how };
    const child = spawn(process.execPath, [PROGRAM], { env, stdio: ["ignore", "pipe", "ignore"] });
    const ended = once(child, "exit");
    const [line] = await once(createInterface({ input: child.stdout }), "line");
    const dir = join(t.dir, basename(String(line)));
    if (how.startsWith("SIG")) {
      const leaks = await findLeaks({ testId: "none", dir, before: new Set() });
      assert.ok(
        leaks.some((leak) => /process \d+: sleep 300/.test(leak)),
        leaks.join(),
      );
      child.kill(how === "SIGINT" ? "SIGINT" : "SIGTERM");
    }
    assert.deepEqual(await ended, [status, null]);
    await assert.rejects(stat(dir), { code: "ENOENT" });
    const leaks = await findLeaks({ testId: "none", dir, before: new Set() });
    assert.deepEqual(
      leaks.filter((leak) => leak.startsWith("process")),
      [],
    );
    assert.deepEqual(
      (await readdir(t.dir)).filter((name) => name.startsWith("op-")),
      [],
    );
  });
}
