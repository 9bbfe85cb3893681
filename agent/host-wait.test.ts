import { chmod, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { HostWait } from "./host-wait.ts";

async function program(dir: string, script: string): Promise<string> {
  const path = join(dir, "program");
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

test("who waits for a host goes on with each answer, and looks by itself when the program is gone", async (t) => {
  const dir = await tempDir(t);
  await using port = await open("/dev/null");
  const host = HostWait.start(port, await program(dir, "dd bs=1 count=2 2> /dev/null"));
  for (let answer = 0; answer < 2; answer += 1) await host.wait();
  // It ends now. Whether it is gone already or while it is asked, nobody waits for ever.
  for (let look = 0; look < 5; look += 1) await host.wait();
});

test("without the program a host is looked for all the same", async () => {
  await using port = await open("/dev/null");
  const host = HostWait.start(port, "/nonexistent/program");
  await host.wait();
  await host.wait();
});
