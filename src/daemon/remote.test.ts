import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import net from "node:net";
import { dirname, join } from "node:path";
import tls from "node:tls";
import { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { createLog, runTool } from "../base/index.ts";
import { resolvePaths } from "../sdk/index.ts";
import { type Daemon, daemonSocketPath, startDaemon } from "./index.ts";
import { Tokens } from "./tokens.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";
const repository = join(import.meta.dirname, "../..");

interface Remote {
  readonly daemon: Daemon;
  readonly dir: string;
  readonly lines: string[];
}

async function setUp(t: TestScope): Promise<Remote> {
  const dir = await tempDir(t);
  const [certificate, key] = [join(dir, "cert.pem"), join(dir, "key.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
  const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
  await runTool("openssl", [...made, ...subject, "-out", certificate, "-keyout", key]);
  const lines: string[] = [];
  const runDir = join(dir, "run");
  await mkdir(runDir);
  const daemon = await startDaemon({
    root: dir,
    runDir,
    log: createLog({ level: "info", json: true, write: (line) => lines.push(line) }),
    openRuntime: async () => new FakeRuntime(),
    remote: {
      host: "127.0.0.1",
      port: 0,
      certificate: await readFile(certificate, "utf8"),
      key: await readFile(key, "utf8"),
      tokens: Tokens.parse(`# who\nann ${TOKEN}\n`, "tokens"),
    },
  });
  t.after(() => daemon.stop());
  return { daemon, dir, lines };
}

test("over TCP the API wants TLS and a token, and the log knows whose", async (t) => {
  const { daemon, dir, lines } = await setUp(t);
  const base = ["-s", "-m", "10", "--cacert", join(dir, "cert.pem"), "-H", "Content-Type: application/json"];
  const url = `https://127.0.0.1:${daemon.remotePort}`;
  const call = async (method: string, body: string, ...args: string[]): Promise<Record<string, unknown>> => {
    const words = [...base, ...args, "-d", body, `${url}/belljar.api.v1.${method}`];
    return JSON.parse((await runTool("curl", words)).stdout.toString());
  };
  const bearer = ["-H", `Authorization: Bearer ${TOKEN}`];
  for (const version of ["--http1.1", "--http2"]) {
    assert.equal((await call("DaemonService/GetDaemon", "{}", version, ...bearer))["pid"], process.pid, version);
    assert.equal((await call("DaemonService/GetDaemon", "{}", version))["code"], "unauthenticated");
  }
  const wrong = ["-H", `Authorization: Bearer ${TOKEN.replace("0", "1")}`];
  assert.equal((await call("DaemonService/GetDaemon", "{}", ...wrong))["code"], "unauthenticated");
  const lie = ["-H", "belljar-client: somebody else"];
  await call("SandboxService/CreateSandbox", '{"spec":{"name":"web","image":"x"}}', ...bearer, ...lie);
  const created = lines.map((line) => JSON.parse(line)).find(({ operation }) => operation === "CreateSandbox");
  assert.equal(created?.client, "token ann from 127.0.0.1");
  const metrics = await runTool("curl", ["-s", "-m", "10", "--cacert", join(dir, "cert.pem"), `${url}/metrics`]);
  assert.match(metrics.stdout.toString(), /unauthenticated/);
});

test("what is no TLS gets nothing from the port, and nothing is left of it", async (t) => {
  const { daemon } = await setUp(t);
  const port = daemon.remotePort ?? 0;
  for (const bytes of [
    "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\u0016\u0003\u0001garbage",
  ]) {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => {});
    let got = "";
    socket.on("data", (chunk) => {
      got += chunk.toString("latin1");
    });
    socket.end(bytes);
    await once(socket, "close");
    assert.doesNotMatch(got, /belljar|HTTP\/1.1 200/);
  }
  const old = tls.connect({
    port,
    host: "127.0.0.1",
    rejectUnauthorized: false,
    maxVersion: "TLSv1.1",
    minVersion: "TLSv1",
  });
  await assert.rejects(once(old, "secureConnect"));
});

test("tokens are long, named and not for everybody to read", async (t) => {
  const path = join(await tempDir(t), "tokens");
  await writeFile(path, `ann ${TOKEN}\n`);
  await chmod(path, 0o644);
  await assert.rejects(Tokens.read(path), { reason: "INVALID_ARGUMENT", message: /others than its owner/ });
  await chmod(path, 0o600);
  const tokens = await Tokens.read(path);
  assert.deepEqual([tokens.find(`Bearer ${TOKEN}`), tokens.find(`bearer ${TOKEN}`)], ["ann", "ann"]);
  for (const header of [undefined, "", "Bearer", "Bearer x", `Basic ${TOKEN}`])
    assert.equal(tokens.find(header), undefined);
  for (const text of ["", "# only\n", `ann ${TOKEN.slice(1)}`, TOKEN, `a ${TOKEN}\na ${TOKEN}`, `../a ${TOKEN}`]) {
    assert.throws(() => Tokens.parse(text, "tokens"), { reason: "INVALID_ARGUMENT" }, text);
  }
});

test("a socket that systemd hands over is used, and stays when the daemon stops", async (t) => {
  const dir = await tempDir(t);
  const env = { ...process.env, BELLJAR_ROOT: join(dir, "root"), BELLJAR_RUN: join(dir, "run") };
  const place = daemonSocketPath(resolvePaths({}, env, 0).run);
  await mkdir(dirname(place), { recursive: true });
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(`${place}.made`, resolve));
  // Closing it removes the file that it made, which is then another one.
  await rename(`${place}.made`, place);
  const descriptor: unknown = Reflect.get(Object(Reflect.get(server, "_handle")), "fd");
  assert.ok(typeof descriptor === "number");
  const child = spawn(
    "sh",
    ["-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" daemon run`, join(repository, "bin/belljar")],
    {
      env,
      stdio: ["ignore", "ignore", "pipe", descriptor],
    },
  );
  server.close();
  t.after(() => child.kill("SIGKILL"));
  await new Promise<void>((resolve) =>
    child.stderr?.on("data", (chunk) => String(chunk).includes("listening") && resolve()),
  );
  const args = ["-s", "-m", "10", "--unix-socket", place, "-H", "Content-Type: application/json", "-d", "{}"];
  const answer = await runTool("curl", [...args, "http://belljard/belljar.api.v1.DaemonService/GetDaemon"]);
  assert.equal(JSON.parse(answer.stdout.toString()).pid, child.pid);
  child.kill("SIGTERM");
  const [status] = await once(child, "exit");
  assert.equal(status, 0);
  assert.ok((await stat(place)).isSocket());
});

test("the unit files name the socket that clients look for, and let sandboxes run on", async () => {
  const [service, socket] = await Promise.all(
    ["service", "socket"].map((kind) => readFile(join(repository, `packaging/belljard.${kind}`), "utf8")),
  );
  const { run, root } = resolvePaths({}, {}, 0);
  assert.match(socket ?? "", new RegExp(`^ListenStream=${daemonSocketPath(run)}$`, "m"));
  assert.match(service ?? "", new RegExp(`^ExecStart=\\S+ daemon run --root ${root}$`, "m"));
  assert.match(service ?? "", /^KillMode=process$/m);
});
