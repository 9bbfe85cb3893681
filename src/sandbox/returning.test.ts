import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { parseJson, standstillLimits } from "../base/index.ts";
import { AgentService, type PlannedWake } from "../protocol/index.ts";
import { decodeReturning, decodeWakePlan, readWakePlan, type WakeWords, wakeSteps } from "./returning.ts";

const PLAN: PlannedWake = {
  files: [
    { path: "/proc/sys/kernel/hostname", text: "{hostname}" },
    { path: "/hosts", text: "127.0.1.1\t{hostname}\n{hosts}" },
    { path: "/machine-id", text: "{machine-id}\n" },
    { path: "/identity", text: "event={event}\ngeneration={generation}\nsandbox={sandbox}\ntime={time}\n" },
  ],
  furtherPids: [41, 42],
  thaw: { path: "/freeze", text: "0" },
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
  const { files, furtherPids, thaw } = wake;
  return readWakePlan(create(output, { wake: { files: [...files], furtherPids: [...furtherPids], thaw } }));
};

test("a plan becomes steps: files with their words, processes that end, and the thaw last", () => {
  const texts = wakeSteps(PLAN, WORDS, true).map((step) => (step.kind === "kill" ? step.pid : step.text));
  assert.deepEqual(texts, [
    "jug",
    "127.0.1.1\tjug\n10.0.0.1\tother\n",
    "00ff\n",
    "event=forked\ngeneration=3\nsandbox=b2\ntime=2026-01-01T00:00:00.000Z\n",
    41,
    42,
    "0",
  ]);
  const kept = wakeSteps(PLAN, { ...WORDS, "machine-id": undefined }, false);
  assert.deepEqual(
    kept.map((step) => (step.kind === "kill" ? step.pid : step.path)),
    ["/proc/sys/kernel/hostname", "/hosts", "/identity", "/freeze"],
  );
  const hosts = "h".repeat(60_000);
  for (const text of ["{other}", "{constructor}", "{hosts}{hosts}"]) {
    const plan = { ...PLAN, files: [{ path: "/a", text }] };
    assert.throws(() => wakeSteps(plan, { ...WORDS, hosts }, true), { reason: "INVALID_ARGUMENT" }, text);
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
  ]) {
    assert.equal(said(hostile), undefined);
  }
});

test("both come back from a state as they were written, and what is not possible is damage", () => {
  const again = (value: unknown) => parseJson(JSON.stringify(value), "state", "STATE_CORRUPT");
  assert.deepEqual(decodeWakePlan(again(PLAN)), PLAN);
  const state = { event: "restored", generation: 1, machineId: "0".repeat(32), endProcesses: true, toldAtMs: 5 };
  assert.deepEqual(decodeReturning(again(state)), { ...state, bootId: undefined });
  assert.throws(() => decodeReturning(again({ ...state, event: "created" })), { reason: "STATE_CORRUPT" });
  assert.throws(() => decodeWakePlan(again({ ...PLAN, thaw: { path: "x", text: "" } })), { reason: "STATE_CORRUPT" });
});
