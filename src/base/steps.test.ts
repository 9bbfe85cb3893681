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

function numberOf(message: unknown): unknown {
  return typeof message === "object" && message !== null && "number" in message ? message.number : undefined;
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
  const [first, , second] = seen.map(numberOf);
  assert.ok(first !== undefined && second !== undefined && first !== second);
  assert.deepEqual(seen, [
    { kind: "store", name: "rename a", phase: "before", number: first },
    { kind: "store", name: "rename a", phase: "after", number: first },
    { kind: "qmp", name: "stop", phase: "before", number: second },
    { kind: "qmp", name: "stop", phase: "after", number: second },
  ]);
  assert.equal(await publishStep("agent", "nobody listens", async () => 8), 8);
});

test("a program of the host is a step", async () => {
  const seen = await record(() => runTool("true", []));
  const number = numberOf(seen[0]);
  assert.deepEqual(seen, [
    { kind: "child", name: "true", phase: "before", number },
    { kind: "child", name: "true", phase: "after", number },
  ]);
});
