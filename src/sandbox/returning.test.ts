import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { networkLimits, parseJson, standstillLimits } from "../base/index.ts";
import {
  AgentService,
  linkRequest,
  type PlannedInterface,
  type PlannedWake,
  type WakeStep,
} from "../protocol/index.ts";
import { decodeReturning, decodeWakePlan, readWakePlan, type WakeWords, wakeSteps } from "./returning.ts";

const INTERFACE: PlannedInterface = {
  index: 2,
  name: "eth0",
  macAddress: "02:00:00:00:00:01",
  mtu: 1500,
  addresses: ["10.88.0.2/32", "fe80::ff:fe00:1/64"],
};
const PLAN: PlannedWake = {
  files: [
    { path: "/proc/sys/kernel/hostname", text: "{hostname}" },
    { path: "/hosts", text: "127.0.1.1\t{hostname}\n{hosts}" },
    { path: "/machine-id", text: "{machine-id}\n" },
    { path: "/identity", text: "event={event}\ngeneration={generation}\nsandbox={sandbox}\ntime={time}\n" },
  ],
  furtherPids: [41, 42],
  thaw: { path: "/freeze", text: "0" },
  interfaces: [INTERFACE],
  disconnects: true,
  rest: { path: "/rest", text: "1" },
};
const WORDS: WakeWords = {
  event: "forked",
  generation: "3",
  sandbox: "b2",
  time: "2026-01-01T00:00:00.000Z",
  "machine-id": "00ff",
  "boot-id": undefined,
  hostname: "jug",
  hosts: "10.0.0.1\tother\n",
  dns: "",
};

const { output } = AgentService.method.freeze;
const said = (wake: PlannedWake): ReturnType<typeof readWakePlan> => {
  const { files, furtherPids, thaw, interfaces: told = [], disconnects = false, rest } = wake;
  const interfaces = told.map((each) => ({ ...each, addresses: [...each.addresses] }));
  const plan = { files: [...files], furtherPids: [...furtherPids], thaw, interfaces, disconnects, rest };
  return readWakePlan(create(output, { wake: plan }));
};

const network: WakeStep = { kind: "network", requests: [linkRequest({ index: 2, mtu: 1400 })], mayBeGone: false };
const disconnect: WakeStep = { kind: "disconnect", address: "10.0.0.2", keepInside: false };

/** What is told of each, and where. */
const stepsOf = (plan: PlannedWake, words: WakeWords, endProcesses: boolean, rests = false): (readonly unknown[])[] =>
  wakeSteps({ plan, networkSteps: [network, disconnect], rests }, words, endProcesses).map((step) => {
    if (step.kind === "kill") return [step.pid];
    return step.kind === "write" ? [step.text, step.path] : [step.kind];
  });

test("a plan becomes steps: the network, files with their words, processes that end, and the thaw last", () => {
  const texts = stepsOf(PLAN, WORDS, true).map(([text]) => text);
  assert.deepEqual(texts, [
    "network",
    "disconnect",
    "jug",
    "127.0.1.1\tjug\n10.0.0.1\tother\n",
    "00ff\n",
    "event=forked\ngeneration=3\nsandbox=b2\ntime=2026-01-01T00:00:00.000Z\n",
    41,
    42,
    "0",
  ]);
  const kept = stepsOf(PLAN, { ...WORDS, "machine-id": undefined }, false).flatMap(([, path]) => path ?? []);
  assert.deepEqual(kept, ["/proc/sys/kernel/hostname", "/hosts", "/identity", "/freeze"]);
  const resting = stepsOf(PLAN, WORDS, false, true);
  assert.deepEqual(resting.slice(0, 2), [["1", "/rest"], ["network"]]);
  assert.deepEqual(stepsOf({ ...PLAN, rest: undefined }, WORDS, false, true)[0], ["network"]);
  // The program of an older guest does not know how.
  const older = stepsOf({ ...PLAN, disconnects: false }, WORDS, false).map(([text]) => text);
  assert.deepEqual(older.slice(0, 2), ["network", "jug"]);
  const hosts = "h".repeat(60_000);
  for (const text of ["{other}", "{constructor}", "{hosts}{hosts}"]) {
    const plan = { ...PLAN, files: [{ path: "/a", text }] };
    assert.throws(() => stepsOf(plan, { ...WORDS, hosts }, true), { reason: "INVALID_ARGUMENT" }, text);
  }
});

test("what a guest plans is taken as it is, or not at all", () => {
  assert.deepEqual(said(PLAN), PLAN);
  assert.equal(readWakePlan(create(output, {})), undefined);
  assert.equal(readWakePlan(create(output, { wake: { files: [] } })), undefined);
  const { wakeFilesMax, wakePathMaxLength, wakeTextMaxLength, descendantsMax } = standstillLimits;
  const file = { path: "/a", text: "" };
  for (const hostile of [
    { ...PLAN, files: Array.from({ length: wakeFilesMax + 1 }, () => file) },
    { ...PLAN, files: [{ path: "a", text: "" }] },
    { ...PLAN, files: [{ path: `/${"a".repeat(wakePathMaxLength)}`, text: "" }] },
    { ...PLAN, thaw: { path: "/a", text: "x".repeat(wakeTextMaxLength + 1) } },
    { ...PLAN, furtherPids: Array.from({ length: descendantsMax + 1 }, () => 2) },
    { ...PLAN, furtherPids: [0] },
    { ...PLAN, rest: { path: "rest", text: "" } },
  ]) {
    assert.equal(said(hostile), undefined);
  }
});

test("interfaces that cannot be, or are too many, are none; the rest of the plan is as good as ever", () => {
  const { interfaces: _, ...rest } = PLAN;
  const { interfacesMax, presentAddressesMax } = networkLimits;
  for (const hostile of [
    [],
    Array.from({ length: interfacesMax + 1 }, () => INTERFACE),
    [{ ...INTERFACE, index: 0 }],
    [{ ...INTERFACE, index: 2 ** 31 }],
    [{ ...INTERFACE, name: "e/0" }],
    [{ ...INTERFACE, macAddress: "02:00" }],
    [INTERFACE, { ...INTERFACE, addresses: ["10.0.0.1"] }],
    [{ ...INTERFACE, addresses: ["10.0.0.1/33"] }],
    [{ ...INTERFACE, addresses: ["fe80::1%1/64"] }],
    [{ ...INTERFACE, addresses: Array.from({ length: presentAddressesMax + 1 }, () => "10.0.0.1/8") }],
  ]) {
    assert.deepEqual(said({ ...PLAN, interfaces: hostile }), { ...rest, interfaces: undefined });
  }
});

test("both come back from a state as they were written, and what is not possible is damage", () => {
  const again = (value: unknown) => parseJson(JSON.stringify(value), "state", "STATE_CORRUPT");
  assert.deepEqual(decodeWakePlan(again(PLAN)), PLAN);
  // As they were written before they said.
  const older = { ...PLAN, interfaces: undefined, disconnects: undefined, rest: undefined };
  assert.deepEqual(decodeWakePlan(again(older)), older);
  const state = { event: "restored", generation: 1, machineId: "0".repeat(32), endProcesses: true, toldAtMs: 5 };
  assert.deepEqual(decodeReturning(again(state)), { ...state, bootId: undefined, rest: undefined });
  assert.deepEqual(decodeReturning(again({ ...state, rest: "/rest" })).rest, "/rest");
  assert.throws(() => decodeReturning(again({ ...state, event: "created" })), { reason: "STATE_CORRUPT" });
  assert.throws(() => decodeWakePlan(again({ ...PLAN, thaw: { path: "x", text: "" } })), { reason: "STATE_CORRUPT" });
  const damaged = { ...PLAN, interfaces: [{ ...INTERFACE, addresses: ["all"] }] };
  assert.throws(() => decodeWakePlan(again(damaged)), { reason: "STATE_CORRUPT" });
});
