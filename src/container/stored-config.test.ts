import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError, decodeField, sandboxLimits } from "../base/index.ts";
import type { ContainerConfig } from "./config.ts";
import { decodeStoredConfig, storeConfig } from "./stored-config.ts";

const refusal = (config: ContainerConfig): BelljarError => {
  try {
    storeConfig(config);
  } catch (error) {
    return BelljarError.from(error);
  }
  throw new Error("it was not refused");
};

/** With its end mark it is as long as may be. */
const longest = "x".repeat(sandboxLimits.argumentMaxBytes - 1);

test("what Linux passes on can be kept, and read back", () => {
  const config = { command: ["sh", longest], env: [longest], entrypoint: [longest], workingDir: "/tmp" };
  const stored = storeConfig(config);
  const field = decodeField(JSON.parse(JSON.stringify(stored)), "config", "STATE_CORRUPT");
  assert.deepEqual(JSON.parse(JSON.stringify(decodeStoredConfig(field))), config);
});

test("what it does not is refused by name, with what to do", () => {
  for (const config of [
    { command: ["sh", `${longest}x`] },
    { entrypoint: [`${longest}x`] },
    { env: [`A=${"☃".repeat(sandboxLimits.argumentMaxBytes / 3)}`] },
    { env: ["A"], clientEnvironment: { A: longest } },
  ]) {
    const { reason, message, remedy = "" } = refusal(config);
    assert.equal(reason, "INVALID_ARGUMENT");
    assert.match(message, /^an argument or environment variable of 13\d{4} bytes: ".{40}"\.\.\.$/u);
    assert.match(remedy, /as a file/);
  }
});

test("text that is too long or not well formed elsewhere is the caller's mistake, not a damaged file", () => {
  const { reason, message } = refusal({ workingDir: `/${"x".repeat(100_000)}` });
  assert.deepEqual(
    [reason, message.startsWith("container.workingDir: expected a string of at most")],
    ["INVALID_ARGUMENT", true],
  );
  assert.equal(refusal({ user: "\ud800" }).reason, "INVALID_ARGUMENT");
  assert.equal(refusal({ command: new Array<string>(20_000).fill("x") }).reason, "INVALID_ARGUMENT");
});
