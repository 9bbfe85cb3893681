/**
 * Forks of a running HTTP server, each on a port of its own, while the source is asked all the time. `BELLJAR_FORKS` asks for more of them
 * than the few that are enough to see it; then the times are worth looking at, too. `BELLJAR_NETWORK=bridge` changes the host's own
 * network while it runs.
 */
import assert from "node:assert/strict";
import { get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { openEmbedded } from "../support/embedded.ts";
import { test } from "../support/harness.ts";

const COUNT = Number(process.env["BELLJAR_FORKS"] ?? 3);
const MODE = process.env["BELLJAR_NETWORK"] === "bridge" ? "bridge" : "user";
const SERVER = 'require("http").createServer((q, r) => r.end("hello from " + require("os").hostname())).listen(80)';

/** From a connection of its own. */
function ask(port: number, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get({ host: "127.0.0.1", port, agent: false, timeout: timeoutMs }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    request.on("error", reject);
  });
}

test("forks of a running server answer on ports of their own, and the source never misses a request", async (t) => {
  const runtime = await openEmbedded(t);
  await using source = await runtime.sandboxes.create({
    image: "node",
    network: { mode: MODE, ports: [{ hostAddress: "127.0.0.1", containerPort: 80 }] },
    container: { command: ["node", "-e", SERVER] },
  });
  const portOf = async (sandbox: typeof source): Promise<number> =>
    (await sandbox.info()).network?.ports[0]?.hostPort ?? 0;
  const port = await portOf(source);
  const answers = async (of: number, until: number): Promise<string> => {
    for (;;) {
      try {
        return await ask(of, 10_000);
      } catch (error) {
        if (performance.now() > until) throw error;
        await sleep(20);
      }
    }
  };
  await answers(port, performance.now() + 60_000);
  // One at a time, each with a connection of its own: it may be slow while it is frozen, and it is never refused.
  const stop = new AbortController();
  const times: number[] = [];
  const asking = (async () => {
    while (!stop.signal.aborted) {
      const begunMs = performance.now();
      assert.match(await ask(port, 10_000), /^hello from /);
      times.push(performance.now() - begunMs);
      await sleep(20);
    }
  })();
  await sleep(1_000);
  const begunMs = performance.now();
  const forks = await source.fork({ count: COUNT, name: "fork-{n}" });
  const forkedMs = performance.now() - begunMs;
  try {
    const ports = await Promise.all(forks.map(portOf));
    assert.equal(new Set([...ports, port]).size, COUNT + 1);
    const texts = await Promise.all(ports.map((each) => answers(each, performance.now() + 60_000)));
    const answeredMs = performance.now() - begunMs;
    assert.equal(new Set(texts).size, COUNT, "each says who it is");
    await sleep(500);
    stop.abort();
    await asking;
    t.diagnostic(
      `${COUNT} forks made after ${Math.round(forkedMs)} ms, all answered after ${Math.round(answeredMs)} ms; the source answered ` +
        `${times.length} of ${times.length} requests, the slowest after ${Math.round(Math.max(...times))} ms`,
    );
  } finally {
    stop.abort();
    await asking.catch(() => {});
    for (const fork of forks) await fork.delete({ force: true });
  }
});
