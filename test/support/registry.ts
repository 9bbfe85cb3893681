/** A real container registry (Debian's docker-registry) on a free port of loopback, for one test. */
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type TestScope, tempDir } from "./harness.ts";

export interface Registry {
  /** `127.0.0.1:PORT` */
  readonly address: string;
}

export async function startRegistry(t: TestScope): Promise<Registry> {
  const dir = await tempDir(t);
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const config = join(dir, "config.yml");
  await writeFile(
    config,
    `version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: ${join(dir, "data")} } }
http: { addr: "${address}" }
`,
  );
  const child = spawn("docker-registry", ["serve", config], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  const deadline = performance.now() + 15_000;
  for (;;) {
    const answer = await fetch(`http://${address}/v2/`).catch(() => undefined);
    if (answer?.ok === true) return { address };
    if (performance.now() > deadline || child.exitCode !== null) throw new Error("the registry did not start");
    await sleep(20);
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
