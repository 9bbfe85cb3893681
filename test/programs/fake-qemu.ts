/**
 * A QEMU that misbehaves: `fake-qemu.ts MODE ARGUMENTS...`, with QEMU's own arguments. Its faults are those that no real QEMU
 * can be made to show at will.
 */
import { createServer, type Socket } from "node:net";

const [mode = "good", ...args] = process.argv.slice(2);
const version = mode === "too-old" || mode === "too-old-dies" ? [6, 2, 0] : [7, 2, 9];

if (args[0] === "--version") {
  process.stdout.write(`QEMU emulator version ${version.join(".")} (Fake 1:${version.join(".")})\n`);
  process.exit(0);
}

/** Path of the socket of one of our character devices. */
function socketPath(id: string): string {
  const device = args.find((arg) => arg.startsWith(`socket,id=${id},`)) ?? "";
  return /path=((?:[^,]|,,)+)/.exec(device)?.[1]?.replaceAll(",,", ",") ?? "";
}

function die(status: number, ...words: string[]): never {
  process.stderr.write(words.map((word) => `qemu-system-x86_64: ${word}\n`).join(""));
  process.exit(status);
}

if (mode === "dies") die(1, "\u001b[31mbroken\u001b[0m\u0007 firmware: \u202egnp.exe", "giving up");
if (mode === "no-memory") die(1, "cannot set up guest memory 'ram': Cannot allocate memory");
if (mode === "too-old-dies") die(1, "-sandbox: invalid option");

const consoleConnected = Promise.withResolvers<Socket>();
let running = false;

function send(socket: Socket, message: unknown): void {
  socket.write(`${JSON.stringify(message)}\r\n`);
}

/** The guest ends the VM, having said these last words on its console. */
async function guestEnds(socket: Socket, reason: string, lastWords: string): Promise<void> {
  const console = await consoleConnected.promise;
  console.write(lastWords);
  send(socket, { event: "SHUTDOWN", data: { guest: true, reason }, timestamp: { seconds: 1, microseconds: 2 } });
  // Everything is written before the end, as a real QEMU does it.
  socket.end(() => process.exit(0));
}

function answer(socket: Socket, line: string): void {
  const { execute, id } = JSON.parse(line);
  const done = (result: unknown = {}): void => send(socket, { return: result, id });
  switch (execute) {
    case "query-status":
      if (mode === "deaf-later") return;
      if (mode === "garbage-later") {
        socket.write('{"return": {"status": 7}, "id": "x"}\n');
        return;
      }
      done({ running, status: running ? "running" : "paused" });
      return;
    case "query-cpus-fast":
      done([{ "thread-id": process.pid, "cpu-index": 0 }]);
      return;
    case "query-migrate":
      done(mode === "blocked" ? { "blocked-reasons": ["device 'x' has no state"] } : {});
      return;
    case "cont":
      running = true;
      if (mode === "good") send(socket, { event: "RESUME", timestamp: { seconds: 1, microseconds: 13_000 } });
      if (mode === "no-clock") send(socket, { event: "RESUME", timestamp: { seconds: -1, microseconds: -1 } });
      done();
      if (mode === "panics")
        guestEnds(socket, "guest-reset", "[ 1.0] Kernel panic - not syncing: \u001b[2Jno root\r\n");
      if (mode === "powers-off") void guestEnds(socket, "guest-shutdown", "bye\r\n");
      if (mode === "resets") void guestEnds(socket, "guest-reset", "bye\r\n");
      return;
    case "stop":
      if (mode === "dies-later") die(3, "a wild pointer", "this is the end");
      running = false;
      if (mode === "good" || mode === "no-clock")
        send(socket, { event: "STOP", timestamp: { seconds: 1, microseconds: 500 } });
      done();
      return;
    case "device_add":
      if (mode === "refuses-disks") send(socket, { id, error: { class: "GenericError", desc: "no room\non the bus" } });
      else done();
      return;
    case "device_del":
      if (mode === "half-a-disk" || mode === "no-disk") {
        send(socket, { id, error: { class: "DeviceNotFound", desc: "Device 'disk-a' not found" } });
        return;
      }
      done();
      if (mode === "keeps-disks") return;
      send(socket, { event: "DEVICE_DELETED", data: { path: "/machine/peripheral/disk-a", device: "disk-a" } });
      return;
    case "blockdev-del":
      process.stderr.write(`blockdev-del\n`);
      if (mode === "no-disk" || mode === "busy-disk") {
        send(socket, { id, error: { class: "GenericError", desc: "no such node, or in use" } });
      } else done();
      return;
    case "query-named-block-nodes":
      done(mode === "busy-disk" ? [{ "node-name": "node-a" }] : [{ "node-name": "other" }, {}]);
      return;
    case "quit":
      if (mode === "deaf-later") return;
      done();
      socket.end(() => process.exit(0));
      return;
    default:
      done();
  }
}

createServer((socket) => {
  consoleConnected.resolve(socket);
  socket.on("error", () => {});
}).listen(socketPath("console"));

if (mode !== "never-listens") {
  createServer((socket) => {
    socket.on("error", () => {});
    if (mode === "never-greets") return;
    if (mode === "garbage") {
      socket.write("\u001b]0;owned\u0007hello, I am not QMP\n");
      return;
    }
    if (mode === "flood") {
      const flood = (): void => {
        while (socket.write("x".repeat(65536)));
      };
      socket.on("drain", flood);
      flood();
      return;
    }
    const [major, minor, micro] = version;
    send(socket, { QMP: { version: { qemu: { major, minor, micro }, package: "fake" }, capabilities: ["oob"] } });
    let buffered = "";
    socket.on("data", (chunk) => {
      buffered += chunk.toString("utf8");
      const lines = buffered.split("\n");
      buffered = lines.pop() ?? "";
      for (const line of lines) answer(socket, line);
    });
  }).listen(socketPath("qmp"));
}
