/** VMs that wait for a sandbox, in a daemon: with every kind of network they are taken, and their network is that of the sandbox. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { runCli, startCli, test } from "../support/harness.ts";
import { networkHost } from "../support/network-host.ts";
import { until } from "../support/until.ts";

const timeoutMs = 60_000;
const SERVE = ["sh", "-c", 'echo "hello from $(hostname)" >/tmp/index.html; exec httpd -f -h /tmp'];

for (const mode of ["none", "user", "bridge"] as const) {
  test(`a sandbox with network ${mode} takes the VM that waits for it, and is reached where it says`, async (t) => {
    const host = await networkHost(t);
    const daemon = startCli(t, ["daemon", "run", "--pool", "1"], { within: host.within });
    const waiting = (): string[] =>
      [...daemon.stderrText().matchAll(/a VM waits for a sandbox sandbox="?(\w+)/g)].map(([, id = ""]) => id);
    await until(() => daemon.stderrText().includes("listening"), { what: "the daemon", timeoutMs });
    const say = async (...args: readonly string[]): Promise<string> => {
      const { status, stdout, stderr } = await runCli(t, args, { within: host.within });
      assert.equal(status, 0, stderr);
      return stdout.toString().trim();
    };
    const ports = mode === "none" ? [] : ["-p", "127.0.0.1::80"];
    const run = (name: string): Promise<string> =>
      say("run", "-d", "--name", name, "--network", mode, ...ports, "busybox", ...SERVE);
    const namespaces = async (): Promise<number> =>
      (await readdir("/run/netns")).filter((name) => waiting().some((id) => name.endsWith(id))).length;

    await run("first");
    await until(() => waiting().length === 1, { what: "a VM that waits", timeoutMs });
    assert.equal(await namespaces(), mode === "none" ? 0 : 1);
    const id = await run("second");
    assert.deepEqual(waiting(), [id]);
    for (const name of mode === "none" ? [] : ["first", "second"]) {
      const { hostname, ports: open } = JSON.parse(await say("inspect", "--json", name));
      const url = `http://127.0.0.1:${open[0].hostPort}/`;
      let answer: string | undefined;
      await until(
        async () => {
          answer = await host.run("curl", "-sS", "-m", "5", url);
          return answer !== undefined;
        },
        { what: url, timeoutMs },
      );
      assert.equal(answer?.trim(), `hello from ${hostname}`);
    }
    await until(() => waiting().length === 2, { what: "another one that waits", timeoutMs });
    await say("rm", "-f", "first", "second");
    daemon.kill("SIGTERM");
    await daemon.done;
    assert.equal(await namespaces(), 0, "what waited is gone with the daemon");
  });
}
