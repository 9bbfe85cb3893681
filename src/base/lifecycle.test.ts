/** The tables are compared with independent ones, written as the sources' documents have them, for every combination. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BelljarError } from "./errors.ts";
import {
  allowedMoves,
  type ContainerOperation,
  checkContainerOperation,
  checkSandboxOperation,
  type LifecycleState,
  lifecycleOperations,
  lifecycleStates,
  type SandboxOperation,
  transition,
} from "./lifecycle.ts";

/** One row per state to leave, one column per state to enter, in the order of `lifecycleStates`. */
const expectedMoves: Readonly<Record<LifecycleState, string>> = {
  ready: "-r-s",
  running: "--ps",
  paused: "-r-s",
  stopped: "-r--",
};

/** Columns: ready, running, paused, stopped. */
const expectedSandbox: Readonly<Record<SandboxOperation, string>> = {
  start: "y--y",
  stop: "yyyy",
  pause: "-y--",
  resume: "--y-",
  delete: "y-yy",
  release: "yyyy",
  monitor: "-y--",
  checkpoint: "-yy-",
  hibernate: "-y--",
  rewind: "-yyy",
  createContainer: "yy--",
  addDevice: "yy--",
  removeDevice: "yy-y",
  network: "yy--",
  resize: "yy-y",
  stats: "-y--",
};

/** The container's own columns, then its sandbox's. */
const expectedContainer: Readonly<Record<ContainerOperation, readonly [string, string]>> = {
  start: ["y--y", "-y--"],
  stop: ["yyyy", "yy-y"],
  pause: ["-y--", "-y--"],
  resume: ["--y-", "-y--"],
  delete: ["y--y", "yy-y"],
  exec: ["yy--", "-y--"],
  signal: ["yyy-", "yy--"],
  resize: ["yy--", "-y--"],
  writeInput: ["yy--", "-y--"],
  readOutput: ["yyyy", "yyyy"],
  wait: ["yyyy", "yyyy"],
  update: ["yy--", "-y--"],
  stats: ["yyy-", "-y--"],
  files: ["yy--", "yy--"],
};

function allows(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch (error) {
    assert.ok(error instanceof BelljarError);
    assert.equal(error.reason, "INVALID_TRANSITION");
    return false;
  }
}

const says = (columns: string, state: LifecycleState): boolean => columns[lifecycleStates.indexOf(state)] !== "-";

describe("lifecycle", () => {
  it("allows exactly the moves of the state machine, for both kinds", () => {
    for (const kind of ["sandbox", "container"] as const) {
      for (const from of lifecycleStates) {
        for (const to of lifecycleStates) {
          const expected = says(expectedMoves[from], to);
          assert.equal(
            allows(() => assert.equal(transition(kind, from, to), to)),
            expected,
            `${kind}: ${from} -> ${to}`,
          );
        }
      }
    }
  });

  it("allows each sandbox operation in exactly its states", () => {
    assert.deepEqual([...lifecycleOperations.sandbox].sort(), Object.keys(expectedSandbox).sort());
    for (const operation of lifecycleOperations.sandbox) {
      for (const state of lifecycleStates) {
        const expected = says(expectedSandbox[operation], state);
        assert.equal(
          allows(() => checkSandboxOperation(operation, state)),
          expected,
          `${operation} in ${state}`,
        );
      }
    }
  });

  it("allows each container operation in exactly its states and its sandbox's", () => {
    assert.deepEqual([...lifecycleOperations.container].sort(), Object.keys(expectedContainer).sort());
    for (const operation of lifecycleOperations.container) {
      const [own, around] = expectedContainer[operation];
      for (const state of lifecycleStates) {
        for (const sandboxState of lifecycleStates) {
          const expected = says(own, state) && says(around, sandboxState);
          assert.equal(
            allows(() => checkContainerOperation(operation, state, sandboxState)),
            expected,
            `${operation}: container ${state}, sandbox ${sandboxState}`,
          );
        }
      }
    }
  });

  it("says from, to and what is allowed", () => {
    assert.throws(() => transition("sandbox", "stopped", "paused", "web"), {
      message: "sandbox web is stopped and cannot become paused; it can become running",
      facts: { kind: "sandbox", id: "web", from: "stopped", to: "paused", allowed: ["running"] },
    });
    assert.throws(() => checkSandboxOperation("delete", "running"), {
      message: 'the sandbox is running; for "delete" it must be ready or paused or stopped',
    });
    assert.throws(() => checkContainerOperation("exec", "running", "paused", "db"), {
      message: 'the sandbox of container db is paused; for "exec" it must be running',
      facts: {
        kind: "container",
        id: "db",
        operation: "exec",
        blocker: "sandbox",
        state: "paused",
        allowed: ["running"],
      },
    });
  });

  it("follows an independent model through random walks, and can always be stopped and deleted", () => {
    let seed = 1;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    const verbs = { start: "running", pause: "paused", resume: "running", stop: "stopped" } as const;
    const names = ["start", "pause", "resume", "stop"] as const;
    const now: { state: LifecycleState; model: LifecycleState } = { state: "ready", model: "ready" };
    const visited = new Map<string, number>();
    for (let step = 0; step < 20_000; step += 1) {
      // Nothing leads back to ready: begin anew now and then.
      if (random(8) === 0) now.state = now.model = "ready";
      const verb = names[random(names.length)] ?? "stop";
      const to = verbs[verb];
      const { state: before, model } = now;
      // The model: a verb works where its own rule says so, whatever the tables say.
      const works: boolean =
        (verb === "start" && (model === "ready" || model === "stopped")) ||
        (verb === "pause" && model === "running") ||
        (verb === "resume" && model === "paused") ||
        (verb === "stop" && model !== "stopped");
      const did = allows(() => {
        checkSandboxOperation(verb, now.state);
        now.state = transition("sandbox", now.state, to);
      });
      if (works) now.model = to;
      assert.equal(did, works, `step ${step}: ${verb} when ${before}`);
      assert.equal(now.state, now.model);
      if (did) visited.set(`${before} ${verb}`, (visited.get(`${before} ${verb}`) ?? 0) + 1);
      assert.ok(allowedMoves(now.state).includes("stopped") || now.state === "stopped");
    }
    assert.deepEqual([...visited.keys()].sort(), [
      "paused resume",
      "paused stop",
      "ready start",
      "ready stop",
      "running pause",
      "running stop",
      "stopped start",
    ]);
  });
});
