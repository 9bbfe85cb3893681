/**
 * Forks of a running HTTP server, each on a port of its own, while the source is asked all the time. `BELLJAR_FORKS` asks for more of them
 * than the few that are enough to see it; then the times are worth looking at, too. `BELLJAR_NETWORK=bridge` changes the host's own
 * network while it runs; `BELLJAR_SERVER=busybox` or `lighttpd` (of Debian, for which an image is made) has a small server in place of
 * Node; `BELLJAR_SPARES` has so many VMMs wait for the forks; `BELLJAR_ROUNDS` makes them more than once.
 */
import assert from "node:assert/strict";
import { get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { findVmmProcesses } from "../../src/hypervisor/index.ts";
import { debianImage } from "../support/debian-image.ts";
import { embeddedPaths, openEmbedded } from "../support/embedded.ts";
import { runCli, startCli, test } from "../support/harness.ts";
import { networkHost } from "../support/network-host.ts";
import { until } from "../support/until.ts";

const COUNT = Number(process.env["BELLJAR_FORKS"] ?? 3);
const MODE = process.env["BELLJAR_NETWORK"] === "bridge" ? "bridge" : "user";
const SPARES = Number(process.env["BELLJAR_SPARES"] ?? 0);
const ROUNDS = Number(process.env["BELLJAR_ROUNDS"] ?? 1);
/** Between the answer of the source and the next request. */
const PAUSE_MS = 50;
const LIGHTTPD = 'server.document-root="/etc"\\nserver.port=80\\n';
/** Each says who it is. */
const SERVERS = {
  node: {
    command: ["node", "-e", 'require("http").createServer((q, r) => r.end(require("os").hostname())).listen(80)'],
    path: "/",
  },
  busybox: { command: ["httpd", "-f", "-h", "/etc"], path: "/hostname" },
  lighttpd: {
    command: ["sh", "-c", `printf '${LIGHTTPD}' >/run/conf && exec lighttpd -D -f /run/conf`],
    path: "/hostname",
  },
} as const;
const { BELLJAR_SERVER } = process.env;
const IMAGE = BELLJAR_SERVER === "busybox" || BELLJAR_SERVER === "lighttpd" ? BELLJAR_SERVER : "node";
const { command, path } = SERVERS[IMAGE];

/** From a connection of its own. */
function ask(port: number, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false, timeout: timeoutMs }, (response) => {
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
  const paths = await embeddedPaths(t);
  const runtime = await openEmbedded(t, { spareCount: SPARES, paths });
  if (IMAGE === "lighttpd") {
    await runtime.images.import(await debianImage(IMAGE, [IMAGE]), { name: IMAGE, kind: "rootfs" });
  }
  await using source = await runtime.sandboxes.create({
    image: IMAGE,
    network: { mode: MODE, ports: [{ hostAddress: "127.0.0.1", containerPort: 80 }] },
    container: { command: [...command] },
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
  for (let round = 0; round < ROUNDS; round += 1) {
    if (SPARES > 0) {
      // More than one: those that wait for many are others.
      for (const first of await source.fork(2)) await first.delete({ force: true });
      await until(async () => (await findVmmProcesses(paths.run)).length === SPARES + 1, {
        what: "spares",
        timeoutMs: 60_000,
      });
    }
    // One at a time, each with a connection of its own: it may be slow while it is frozen, and it is never refused.
    const stop = new AbortController();
    const times: number[] = [];
    const asking = (async () => {
      while (!stop.signal.aborted) {
        const begunMs = performance.now();
        assert.match(await ask(port, 10_000), /^[0-9a-f]{12}\s*$/);
        times.push(performance.now() - begunMs);
        await sleep(PAUSE_MS);
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
  }
});

/**
 * Says what has happened to it and where it is, whenever that has changed, and first of all when it goes on, since it was due then; and asks
 * somebody outside as soon as it is a copy. It has a connection to the outside and one to itself, and says when it has lost one.
 */
const LOOK = `
  const { readFileSync } = require("fs");
  const { createServer, get } = require("http");
  const net = require("net");
  const eventNow = () => readFileSync("/run/belljar/identity", "utf8").split("\\n")[0];
  let last = "";
  setInterval(() => {
    const event = eventNow();
    const [{ address, mac } = {}] = require("os").networkInterfaces().eth0 ?? [];
    const line = [event, address, mac].join(" ");
    // It may have stood still between the two.
    if (line === last || eventNow() !== event) return;
    last = line;
    console.log(line);
    if (event !== "event=forked") return;
    get(process.argv[1], (answer) => answer.on("data", (text) => console.log(String(text)))).on("error", console.log);
  }, 50);
  createServer((q, r) => r.end("hello from " + require("os").hostname())).listen(80);
  const { hostname, port } = new URL(process.argv[1]);
  net.connect(port, hostname).on("error", ({ code }) => console.log("lost by " + code));
  net.createServer((socket) => socket.pipe(socket)).listen(81, () => {
    net.connect(81, "127.0.0.1").on("close", () => console.log("lost inside"));
  });`;

test("forks on a bridge are where they belong before anything of them runs", async (t) => {
  const timeoutMs = 60_000;
  const host = await networkHost(t);
  await host.serve("0.0.0.0", 9001);
  const daemon = startCli(t, ["daemon", "run", "--log-level", "debug"], { within: host.within });
  await until(() => daemon.stderrText().includes("listening"), { what: "the daemon", timeoutMs });
  const output = async (...args: readonly string[]): Promise<string> => {
    const { status, stdout, stderr } = await runCli(t, args, { within: host.within });
    assert.equal(status, 0, stderr);
    return stdout.toString().trim();
  };
  const network = ["--network", "bridge", "-p", "127.0.0.1::80", "--allow", `${host.address}:9001`];
  await output("run", "-d", "--name", "source", ...network, "node", "node", "-e", LOOK, `http://${host.address}:9001/`);
  interface Place {
    readonly address: string;
    readonly port: number;
  }
  const placeOf = async (name: string): Promise<Place> => {
    const { network, ports } = JSON.parse(await output("inspect", "--json", name));
    return { address: network.addresses[0], port: ports[0].hostPort };
  };
  const get = (port: number): Promise<string | undefined> =>
    host.run("curl", "-sS", "-m", "5", `http://127.0.0.1:${port}/`);
  const source = await placeOf("source");
  await until(async () => (await get(source.port))?.startsWith("hello from") === true, {
    what: "the server",
    timeoutMs,
  });

  await output("fork", "source", "-n", "3", "--name", "fork-{n}");
  const names = ["fork-1", "fork-2", "fork-3"];
  const places = await Promise.all(names.map(placeOf));
  assert.equal(new Set([source, ...places].flatMap(({ address, port }) => [address, port])).size, 8);
  for (const [index, name] of names.entries()) {
    const { address, port } = places[index] ?? source;
    const what = `what ${name} was told outside`;
    await until(async () => (await output("logs", name)).includes("served"), { what, timeoutMs });
    const lines = (await output("logs", name)).split("\n");
    // It may have heard of that before its clock told it to look.
    assert.deepEqual(
      lines.filter((line) => line.startsWith("lost")),
      ["lost by ECONNABORTED"],
    );
    const [first = "", ...since] = lines.filter((line) => !line.startsWith("lost"));
    assert.match(first, new RegExp(`^event=created ${source.address} `));
    assert.match(since[0] ?? "", new RegExp(`^event=forked ${address} 02:`));
    assert.deepEqual(since.slice(1), [`served / to ${address}`], "it was in no other place, and came out at once");
    assert.match((await get(port)) ?? "", /^hello from /);
  }
  assert.doesNotMatch(await output("logs", "source"), /lost/);
  const brought = daemon.stderrText().match(/a copy was brought back by the guest's wake program.*/g);
  assert.equal(brought?.length, 3, daemon.stderrText());
  for (const name of names) assert.match(await output("exec", name, "hostname"), /^[0-9a-f]{12}$/);
  await output("rm", "-f", "source", ...names);
});
