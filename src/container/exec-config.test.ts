import assert from "node:assert/strict";
import { test } from "node:test";
import type { ProcessConfig } from "./config.ts";
import { execConfig } from "./exec-config.ts";
import { buildProcess } from "./spec.ts";
import type { StoredConfig } from "./stored-config.ts";

const own: StoredConfig = {
  command: ["serve"],
  env: ["A=1", "B=1"],
  workingDir: "/srv",
  user: "web",
  capDrop: ["ALL"],
  capAdd: ["NET_RAW"],
  securityOptions: ["no-new-privileges"],
};
const IMAGE = { entrypoint: ["/entry"], cmd: ["image"], env: ["A=0", "C=0"], workingDir: "/" };

function processOf(config: StoredConfig, asked: ProcessConfig): ReturnType<typeof buildProcess> {
  return buildProcess(IMAGE, { ...execConfig(config, { command: ["id"], ...asked }), hostname: "jar" });
}

test("exec: what is not asked for is the container's, whether it is left out or undefined", () => {
  const nothing: ProcessConfig = {
    env: undefined,
    clientEnvironment: undefined,
    workingDir: undefined,
    user: undefined,
    tty: undefined,
    capAdd: undefined,
    capDrop: undefined,
  };
  for (const asked of [{}, nothing, { env: [], capAdd: [], capDrop: [] }]) {
    const found = processOf(own, asked);
    assert.deepEqual(found.capabilities.bounding, ["CAP_NET_RAW"]);
    assert.equal(found.cwd, "/srv");
    assert.deepEqual(
      found.env.filter((entry) => /^[ABC]=/.test(entry)),
      ["A=1", "C=0", "B=1"],
    );
    assert.deepEqual(found.args, ["id"]);
    assert.equal(found.noNewPrivileges, true);
    assert.equal(found.terminal, false);
    assert.equal(execConfig(own, asked).user, "web");
  }
});

test("exec: what is asked for is changed, and nothing else", () => {
  const found = processOf(own, { env: ["B=2", "A"], workingDir: "/tmp", capAdd: ["kill"], tty: true });
  assert.deepEqual(
    found.env.filter((entry) => /^[ABC]=/.test(entry)),
    ["C=0", "B=2"],
  );
  assert.deepEqual(found.capabilities.bounding, ["CAP_KILL", "CAP_NET_RAW"]);
  assert.deepEqual([found.cwd, found.terminal], ["/tmp", true]);
});

test("exec: capabilities are taken away from the container's own", () => {
  assert.deepEqual(processOf(own, { capDrop: ["net_raw"] }).capabilities.bounding, []);
  assert.deepEqual(processOf(own, { capDrop: ["ALL"], capAdd: ["CHOWN"] }).capabilities.bounding, ["CAP_CHOWN"]);
  assert.equal(processOf({}, {}).capabilities.bounding.length, 14);
  assert.equal(processOf({ capAdd: ["ALL"] }, {}).capabilities.bounding.length, 41);
  assert.throws(() => processOf(own, { capAdd: ["FLYING"] }), /FLYING.*is not a capability/);
});

test("exec: a container that is only kept alive lends its processes everything but its command", () => {
  assert.deepEqual(processOf({ keepAlive: true }, {}).args, ["id"]);
  assert.throws(() => buildProcess(IMAGE, { ...execConfig({ keepAlive: true }, {}), hostname: "jar" }), /no command/);
});
