import assert from "node:assert/strict";
import { test } from "node:test";
import { choosePorts, likelyPorts, tryHostPort } from "./host-ports.ts";
import { type PublishedPort, parsePort, settlePorts } from "./ports.ts";

const port = (hostPort: number, change: Partial<PublishedPort> = {}): PublishedPort => ({
  hostAddress: "0.0.0.0",
  hostPort,
  containerPort: 80,
  protocol: "tcp",
  ...change,
});

test("ports: every way to write them", () => {
  assert.deepEqual(parsePort("8080:80"), [{ hostPort: 8080, containerPort: 80, protocol: "tcp" }]);
  assert.deepEqual(parsePort("80"), [{ hostPort: 0, containerPort: 80, protocol: "tcp" }]);
  assert.deepEqual(parsePort("0:53/udp"), [{ hostPort: 0, containerPort: 53, protocol: "udp" }]);
  assert.deepEqual(parsePort("127.0.0.1::80"), [
    { hostAddress: "127.0.0.1", hostPort: 0, containerPort: 80, protocol: "tcp" },
  ]);
  assert.deepEqual(parsePort("127.0.0.1:5000-5001:6000-6001/udp"), [
    { hostAddress: "127.0.0.1", hostPort: 5000, containerPort: 6000, protocol: "udp" },
    { hostAddress: "127.0.0.1", hostPort: 5001, containerPort: 6001, protocol: "udp" },
  ]);
  assert.deepEqual(
    parsePort("7000-7002").map(({ hostPort }) => hostPort),
    [0, 0, 0],
  );
  assert.equal(parsePort("[::1]:8080:80")[0]?.hostAddress, "::1");
});

test("ports: what makes no sense is refused, with what was written", () => {
  for (const text of [
    "",
    "x",
    "80:",
    "1-2:3",
    "80:90/sctp",
    "70000:80",
    "90-80:90-80",
    "1-1000:1-1000",
    "1.2.3:80:80",
  ]) {
    assert.throws(() => settlePorts(parsePort(text)), { reason: "INVALID_ARGUMENT" }, text);
  }
  assert.throws(() => settlePorts([{ hostAddress: "::1", containerPort: 80 }]), { message: /IPv6/ });
  assert.throws(() => settlePorts(parsePort("8080:80").concat(parsePort("8080:81"))), {
    message: /8080\/tcp .* twice/,
  });
  assert.equal(settlePorts(parsePort("8080:80").concat(parsePort("8080:80/udp"))).length, 2);
});

test("ports: free ones are chosen, others must be free", async () => {
  const tried: number[] = [];
  let free = 4999;
  const tryPort = async ({ hostPort }: PublishedPort): Promise<number> => {
    tried.push(hostPort);
    if (hostPort === 81) throw Object.assign(new Error("in use"), { code: "EADDRINUSE" });
    free += hostPort === 0 ? 1 : 0;
    return hostPort === 0 ? free : hostPort;
  };
  const chosen = await choosePorts([port(0), port(82), port(0, { protocol: "udp" })], [port(5000)], tryPort);
  assert.deepEqual(
    chosen.map(({ hostPort }) => hostPort),
    [5001, 82, 5002],
  );
  await assert.rejects(choosePorts([port(81)], [], tryPort), { reason: "PORT_IN_USE", message: /0\.0\.0\.0:81\/tcp/ });
  await assert.rejects(choosePorts([port(5000, { hostAddress: "127.0.0.1" })], [port(5000)], tryPort), {
    reason: "PORT_IN_USE",
    message: /another sandbox's/,
  });
});

test("ports: those that were expected are used for what they were expected for, while they are free", async () => {
  let free = 4999;
  const tryPort = async ({ hostPort }: PublishedPort): Promise<number> => {
    if (hostPort === 81) throw Object.assign(new Error("in use"), { code: "EADDRINUSE" });
    free += hostPort === 0 ? 1 : 0;
    return hostPort === 0 ? free : hostPort;
  };
  const numbers = async (wanted: PublishedPort[], likely: PublishedPort[], taken: PublishedPort[] = []) =>
    (await likelyPorts(wanted, likely, taken, tryPort)).map(({ hostPort }) => hostPort);
  const udp = { protocol: "udp" } as const;
  assert.deepEqual(await numbers([port(0), port(0, udp)], [port(7000), port(7001, udp)]), [7000, 7001]);
  // For another port of the sandbox, or when one is asked for.
  assert.deepEqual(await numbers([port(0, udp), port(90)], [port(7000), port(7001)]), [5000, 90]);
  assert.deepEqual(await numbers([port(0)], []), [5001]);
  // Taken meanwhile, by another sandbox or a program of the host.
  assert.deepEqual(await numbers([port(0)], [port(7000)], [port(7000)]), [5002]);
  assert.deepEqual(await numbers([port(0)], [port(81)]), [5003]);
  await assert.rejects(numbers([port(81)], [port(7000)]), { reason: "PORT_IN_USE" });
});

test("ports: the host is asked for both protocols", async () => {
  for (const protocol of ["tcp", "udp"] as const) {
    const wanted = port(0, { hostAddress: "127.0.0.1", protocol });
    const hostPort = await tryHostPort(wanted);
    assert.ok(hostPort > 0);
    assert.equal(await tryHostPort({ ...wanted, hostPort }), hostPort);
  }
  await assert.rejects(choosePorts([port(0, { hostAddress: "192.0.2.77" })], []), {
    reason: "INVALID_ARGUMENT",
    message: /no address of this host/,
  });
});
