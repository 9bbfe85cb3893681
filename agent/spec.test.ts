import assert from "node:assert/strict";
import { test } from "node:test";
import { completeProcess, completeSpec, parseObject, wantsTerminal } from "./spec.ts";

const ann = { uid: 1000, gid: 100, additionalGids: [10], home: "/home/ann" };

test("user, home and oom score are filled in, and what is there is kept", () => {
  const given = { args: ["x"], env: ["A=1"], cwd: "/", user: { umask: 18 }, terminal: true };
  assert.deepEqual(completeProcess(given, ann, { columns: 80, rows: 24 }), {
    ...given,
    env: ["A=1", "HOME=/home/ann"],
    user: { umask: 18, uid: 1000, gid: 100, additionalGids: [10] },
    oomScoreAdj: 0,
    consoleSize: { width: 80, height: 24 },
  });
  const kept = completeProcess({ env: ["HOME=/x"], oomScoreAdj: 500 }, ann, { columns: 80, rows: 24 });
  assert.deepEqual(kept["env"], ["HOME=/x"]);
  assert.equal(kept["oomScoreAdj"], 500);
  assert.equal("consoleSize" in kept, false);
});

test("the bundle's own paths replace whatever was sent", () => {
  const spec = {
    ociVersion: "1.0.2",
    root: { path: "/evil", readonly: true },
    linux: { cgroupsPath: "/x", maskedPaths: [] },
  };
  assert.deepEqual(completeSpec(spec, { process: { args: [] }, rootfs: "/r", cgroupsPath: "/belljar/c/run" }), {
    ociVersion: "1.0.2",
    process: { args: [] },
    root: { path: "/r", readonly: true },
    linux: { cgroupsPath: "/belljar/c/run", maskedPaths: [] },
  });
});

test("what is no object is refused", () => {
  for (const text of ["", "[]", "null", "7", "{"]) {
    assert.throws(() => parseObject(Buffer.from(text), "it"), { reason: "INVALID_ARGUMENT" }, text);
  }
  assert.equal(wantsTerminal({ terminal: "true" }), false);
});
