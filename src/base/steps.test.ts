import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { test } from "node:test";
import { publishStep, runTool, STEP_CHANNEL } from "./index.ts";

async function record(work: () => Promise<unknown>): Promise<unknown[]> {
  const seen: unknown[] = [];
  const listener = (message: unknown): void => void seen.push(message);
  subscribe(STEP_CHANNEL, listener);
  try {
    await work();
  } finally {
    unsubscribe(STEP_CHANNEL, listener);
  }
  return seen;
}

test("a step is told before and after, whether it goes well or not", async () => {
  const seen = await record(async () => {
    assert.equal(await publishStep("store", "rename a", async () => 7), 7);
    await assert.rejects(
      publishStep("qmp", "stop", async () => {
        throw new Error("no");
      }),
      { message: "no" },
    );
  });
  assert.deepEqual(seen, [
    { kind: "store", name: "rename a", phase: "before" },
    { kind: "store", name: "rename a", phase: "after" },
    { kind: "qmp", name: "stop", phase: "before" },
    { kind: "qmp", name: "stop", phase: "after" },
  ]);
  assert.equal(await publishStep("agent", "nobody listens", async () => 8), 8);
});

test("a program of the host is a step", async () => {
  assert.deepEqual(await record(() => runTool("true", [])), [
    { kind: "child", name: "true", phase: "before" },
    { kind: "child", name: "true", phase: "after" },
  ]);
});
