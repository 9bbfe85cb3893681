/** The program that wakes copies, on this host. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import {
  addressRequest,
  decodeWakeAnswer,
  encodeWake,
  linkRequest,
  neighbourRequest,
  routeRequest,
  WAKE_ANSWER_BYTES,
  type WakeStep,
} from "../../src/protocol/index.ts";
import { guestProgram } from "../support/guest-program.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

const entropy = Buffer.alloc(64, 1);

interface Program {
  /** @param pieces of one message, as they come */
  readonly ask: (...pieces: readonly Uint8Array[]) => Promise<readonly [errno: number, steps: number]>;
  readonly child: ChildProcess;
}

/** @param words of the command that becomes the program */
async function start(t: TestScope, ...words: readonly string[]): Promise<Program> {
  const [command = "", ...args] = words;
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"] });
  t.after(async () => {
    child.kill("SIGKILL");
    await until(() => child.exitCode !== null || child.signalCode !== null);
  });
  child.stdin.on("error", () => {});
  const ask: Program["ask"] = async (...pieces) => {
    const answer = new Promise<Buffer>((resolve) => child.stdout.once("data", resolve));
    for (const piece of pieces) await new Promise((resolve) => child.stdin.write(piece, resolve));
    const bytes = await answer;
    assert.equal(bytes.length, WAKE_ANSWER_BYTES);
    const { errno, steps } = decodeWakeAnswer(bytes);
    return [errno, steps];
  };
  return { ask, child };
}

test("the wake program: each message as a whole, step by step, and nothing after the step that fails", async (t) => {
  const dir = await tempDir(t);
  const { ask, child } = await start(t, await guestProgram(dir, "wake"));

  const [one, other] = [join(dir, "one"), join(dir, "other")];
  for (const file of [one, other]) await writeFile(file, "what was there before");
  const victim = spawn("sleep", ["1000"], { stdio: "ignore" });
  t.after(() => void victim.kill("SIGKILL"));
  const steps: WakeStep[] = [
    { kind: "write", path: one, text: "short" },
    { kind: "kill", pid: victim.pid ?? 0 },
    { kind: "write", path: other, text: "x".repeat(4_000) },
  ];
  // The clock of this host is left alone.
  assert.deepEqual(await ask(encodeWake({ entropy, steps })), [0, 3]);
  assert.equal(await readFile(one, "utf8"), "short");
  assert.equal(await readFile(other, "utf8"), "x".repeat(4_000));
  await until(() => victim.signalCode === "SIGKILL", { what: "the end of the process" });

  // In pieces, however they come; also of a process that is no more.
  const again = encodeWake({ entropy, steps: [...steps, { kind: "write", path: one, text: "" }] });
  assert.deepEqual(await ask(again.subarray(0, 3), again.subarray(3, 100), again.subarray(100)), [0, 4]);
  assert.equal(await readFile(one, "utf8"), "");

  // ENOENT; what stands after it is not done.
  await mkdir(join(dir, "d"));
  const missing: WakeStep[] = [
    { kind: "write", path: one, text: "1" },
    { kind: "write", path: join(dir, "d/none"), text: "2" },
    { kind: "write", path: other, text: "3" },
  ];
  assert.deepEqual(await ask(encodeWake({ entropy, steps: missing })), [2, 1]);
  assert.deepEqual([await readFile(one, "utf8"), (await readFile(other, "utf8")).length], ["1", 4_000]);

  // Steps that are none: EINVAL, and it goes on with the next message.
  for (const [at, value] of [
    [96, 5],
    [100, 127],
    [100, 4_096],
    [104, 4_096],
  ] as const) {
    const broken = encodeWake({ entropy, steps: [{ kind: "write", path: one, text: "no" }] });
    broken.writeUInt32LE(value, at);
    assert.deepEqual(await ask(broken), [22, 0], `${value} at ${at}`);
  }
  assert.equal(await readFile(one, "utf8"), "1");
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [] })), [0, 0]);

  // A message that cannot be one is the end of it.
  child.stdin?.write(Buffer.alloc(96));
  await until(() => child.exitCode === 2, { what: "its end" });
});

test("the wake program: what it is to ask the kernel of a network is done, or refused with the kernel's word for it", async (t) => {
  const { ask, child } = await start(t, "unshare", "--net", await guestProgram(await tempDir(t), "wake"));
  const ofPlace = async (...words: readonly string[]): Promise<string> => {
    const { stdout } = await runTool("nsenter", [`--net=/proc/${child.pid}/ns/net`, ...words]);
    return stdout.toString();
  };
  // It is the program, in its own place, when it answers.
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [] })), [0, 0]);
  const macAddress = "02:00:00:00:00:01";
  const link = `link add eth0 index 7 address ${macAddress} type veth peer name peer`;
  await ofPlace("ip", ...link.split(" "));
  for (const name of ["eth0", "peer"]) await ofPlace("ip", "link", "set", name, "up");
  await ofPlace("ip", "address", "add", "10.88.0.2/32", "dev", "eth0");
  const index = 7;
  const gateway = "169.254.1.1";
  const step = (requests: readonly Uint8Array[], mayBeGone = false): WakeStep => ({
    kind: "network",
    requests,
    mayBeGone,
  });

  const gone = [
    routeRequest("remove", { index, destination: "default", gateway }),
    neighbourRequest("remove", { index, address: gateway, macAddress }),
    ...["10.88.0.2/32", "10.88.0.9/32", "2001:db8::9/64"].map((address) =>
      addressRequest("remove", { index, address }),
    ),
  ];
  const set = [
    linkRequest({ index, macAddress: "02:00:00:00:00:22", mtu: 1400 }),
    ...["10.88.0.3/32", "10.9.0.3/24", "2001:db8::3/64"].map((address) => addressRequest("set", { index, address })),
    routeRequest("set", { index, destination: `${gateway}/32` }),
    routeRequest("set", { index, destination: "default", gateway }),
    routeRequest("set", { index, destination: "default", gateway: "2001:db8::1" }),
    neighbourRequest("set", { index, address: gateway, macAddress: "02:62:6a:00:00:01" }),
  ];
  // What is there already is no error.
  for (const requests of [set, set]) {
    assert.deepEqual(await ask(encodeWake({ entropy, steps: [step(gone, true), step(requests)] })), [0, 2]);
  }
  assert.match(await ofPlace("ip", "link", "show", "eth0"), /mtu 1400[\s\S]*link\/ether 02:00:00:00:00:22 /);
  const addresses = await ofPlace("ip", "-brief", "address", "show", "dev", "eth0");
  assert.match(addresses, /10\.88\.0\.3\/32 10\.9\.0\.3\/24 2001:db8::3\/64 /);
  assert.doesNotMatch(await ofPlace("ip", "address", "show", "tentative"), /2001:/);
  const routes = (await ofPlace("ip", "route", "show", "dev", "eth0")).split("\n").map((line) => line.trim());
  assert.deepEqual(routes.slice(0, 3), [
    `default via ${gateway}`,
    "10.9.0.0/24 proto kernel scope link src 10.9.0.3",
    `${gateway} scope link`,
  ]);
  assert.match(await ofPlace("ip", "-6", "route", "show", "default"), /^default via 2001:db8::1 dev eth0 /);
  assert.match(await ofPlace("ip", "neighbour"), /^169\.254\.1\.1 dev eth0 lladdr 02:62:6a:00:00:01 PERMANENT/m);

  // EADDRNOTAVAIL, ENODEV, ENETUNREACH; what stands after it is not done.
  const [address, nowhere] = ["10.88.0.9/32", "10.99.0.1"];
  for (const [errno, refused] of [
    [99, step([addressRequest("remove", { index, address })])],
    [19, step([addressRequest("remove", { index: 99, address })], true)],
    [101, step([routeRequest("set", { index, destination: "10.1.0.0/16", gateway: nowhere })], true)],
  ] as const) {
    const after = step([addressRequest("set", { index, address })]);
    assert.deepEqual(await ask(encodeWake({ entropy, steps: [step([]), refused, after] })), [errno, 1]);
  }
  assert.doesNotMatch(await ofPlace("ip", "address"), /10\.88\.0\.9/);

  // Requests that are none: EINVAL. The first one is done by then.
  const one = addressRequest("set", { index, address });
  for (const broken of [one.subarray(0, 12), one.subarray(0, one.length - 4), Buffer.alloc(16), Buffer.of(255, 255)]) {
    assert.deepEqual(await ask(encodeWake({ entropy, steps: [step([one, broken])] })), [22, 0]);
  }
  assert.match(await ofPlace("ip", "address"), /10\.88\.0\.9/);
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [] })), [0, 0]);
});

/** Serves, and says what becomes of it and of its clients: first that it listens, then each line that it is told of. */
const CONNECTIONS = `
  const { connect, createServer } = require("net");
  const [address, count] = [process.argv[1], 40];
  const lost = {};
  const note = (name) => ({ code }) => {
    lost[name] = (lost[name] ?? 0) + 1;
    lost[code] = (lost[code] ?? 0) + 1;
    console.log(JSON.stringify(lost));
  };
  const server = createServer((socket) => socket.on("error", note("served"))).listen(80, async () => {
    for (const host of [address, "127.0.0.1"]) {
      for (let left = count; left > 0; left -= 1) {
        const socket = connect({ host, port: 80, localAddress: host });
        socket.on("error", note(host));
        await new Promise((resolve) => socket.once("connect", resolve));
      }
    }
    console.log("connected");
  });`;

test("the wake program: connections of an address are ended, whatever kind of socket has them, and no others", async (t) => {
  const { ask, child } = await start(t, "unshare", "--net", await guestProgram(await tempDir(t), "wake"));
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [] })), [0, 0]);
  const inPlace = ["nsenter", `--net=/proc/${child.pid}/ns/net`] as const;
  for (const words of [
    "link set lo up",
    "link add eth0 type veth peer name peer",
    "link set eth0 up",
    "address add 10.88.0.2/32 dev eth0",
  ]) {
    await runTool(inPlace[0], [inPlace[1], "ip", ...words.split(" ")]);
  }
  const node = spawn(inPlace[0], [inPlace[1], process.execPath, "-e", CONNECTIONS, "10.88.0.2"]);
  let said = "";
  node.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  t.after(async () => {
    node.kill("SIGKILL");
    await until(() => node.exitCode !== null || node.signalCode !== null);
  });
  await until(() => said.includes("connected"), { what: "connections" });
  assert.deepEqual(
    await ask(encodeWake({ entropy, steps: [{ kind: "disconnect", address: "10.88.0.9", keepInside: false }] })),
    [0, 1],
  );
  const own = { kind: "disconnect", address: "10.88.0.2" } as const;
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [{ ...own, keepInside: true }] })), [0, 1]);
  assert.equal(said, "connected\n");
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [{ ...own, keepInside: false }] })), [0, 1]);
  // Node listens on IPv6 for both, and connects from IPv4: either end is one of the address.
  await until(() => said.includes(`"served":40`) && said.includes(`"10.88.0.2":40`), { what: "their ends" });
  assert.doesNotMatch(said, /127\.0\.0\.1/);
  // Neither IPv4 nor IPv6.
  const broken = encodeWake({ entropy, steps: [{ ...own, keepInside: false }] });
  broken.writeUInt32LE(5, 104);
  assert.deepEqual(await ask(broken), [22, 0]);
  assert.deepEqual(await ask(encodeWake({ entropy, steps: [{ ...own, address: "::1", keepInside: false }] })), [0, 1]);
});
