import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import { buildProcess, buildSpec, type ImageRunConfig, type SpecOptions } from "./spec.ts";

const image: ImageRunConfig = { cmd: ["sh"], env: ["PATH=/bin", "LANG=C"], workingDir: "/srv" };

/** `BELLJAR_UPDATE_GOLDEN=1` writes the files anew; the diff is then for a person to judge. */
async function checkGolden(name: string, options: SpecOptions, config: ImageRunConfig = image): Promise<void> {
  const path = join(import.meta.dirname, "golden", `${name}.json`);
  const text = JSON.stringify(buildSpec(config, options), undefined, 2);
  if (process.env["BELLJAR_UPDATE_GOLDEN"] === "1") await writeFile(path, `${text}\n`);
  assert.deepEqual(JSON.parse(text), JSON.parse(await readFile(path, "utf8")));
}

test("spec: the image's own command and nothing else", () => checkGolden("default", { hostname: "h" }));

test("spec: every option", () =>
  checkGolden("options", {
    hostname: "box",
    command: ["-c", "exit 3"],
    entrypoint: ["/bin/sh"],
    env: ["A=1", "LANG", "B"],
    clientEnvironment: { B: "client" },
    workingDir: "/work",
    tty: true,
    readOnly: true,
    capAdd: ["net_admin", "CAP_SYS_ADMIN"],
    capDrop: ["CHOWN"],
    securityOptions: ["no-new-privileges"],
    pidsLimit: 100,
    shmBytes: 1_048_576,
    tmpfs: ["/cache", "/run:size=1m,mode=755,exec"],
    rlimits: [{ type: "RLIMIT_CORE", soft: 0, hard: 0 }],
    annotations: { "org.example.key": "value" },
  }));

test("spec: seccomp unconfined leaves the profile out", () => {
  const spec = buildSpec(image, { hostname: "h", securityOptions: ["seccomp=unconfined"] });
  assert.equal(spec.linux.seccomp, undefined);
});

test("spec: a profile in docker's form is reduced to what the capabilities select", () => {
  const seccompProfile = JSON.stringify({
    defaultAction: "SCMP_ACT_ERRNO",
    syscalls: [
      { names: ["read"], action: "SCMP_ACT_ALLOW" },
      { names: ["mount"], action: "SCMP_ACT_ALLOW", includes: { caps: ["CAP_SYS_ADMIN"] } },
      { names: ["chroot"], action: "SCMP_ACT_ALLOW", excludes: { caps: ["CAP_CHOWN"] } },
    ],
  });
  const { seccomp } = buildSpec(image, { hostname: "h", seccompProfile }).linux;
  assert.deepEqual(seccomp, {
    defaultAction: "SCMP_ACT_ERRNO",
    architectures: ["SCMP_ARCH_X86_64"],
    syscalls: [{ names: ["read"], action: "SCMP_ACT_ALLOW" }],
  });
});

test("process: docker's rules for entrypoint and command", () => {
  const both: ImageRunConfig = { entrypoint: ["e"], cmd: ["c"] };
  const args = (config: ImageRunConfig, options: Partial<SpecOptions>): readonly string[] =>
    buildProcess(config, { hostname: "h", ...options }).args;
  assert.deepEqual(args(both, {}), ["e", "c"]);
  assert.deepEqual(args(both, { command: ["x", "y"] }), ["e", "x", "y"]);
  assert.deepEqual(args(both, { entrypoint: ["z"] }), ["z"]);
  assert.deepEqual(args(both, { entrypoint: ["z"], command: ["x"] }), ["z", "x"]);
  assert.deepEqual(args(both, { entrypoint: [], command: ["x"] }), ["x"]);
});

test("spec: what cannot be used is refused by name", () => {
  const refused: readonly [Partial<SpecOptions>, RegExp][] = [
    [{ entrypoint: [], command: undefined }, /no command/],
    [{ command: [""] }, /empty string/],
    [{ command: ["a\0b"] }, /NUL/],
    [{ env: ["=x"] }, /no name/],
    [{ workingDir: "relative" }, /absolute/],
    [{ capAdd: ["FLY"] }, /--cap-add "FLY"/],
    [{ capDrop: ["FLY"] }, /--cap-drop "FLY"/],
    [{ securityOptions: ["label=x"] }, /label=x/],
    [{ seccompProfile: "{" }, /seccomp profile/],
    [{ seccompProfile: '{"defaultAction":"ALLOW"}' }, /defaultAction/],
    [{ tmpfs: ["cache"] }, /--tmpfs "cache"/],
    [{ tmpfs: ["/cache:size=lots"] }, /size=lots/],
  ];
  for (const [options, expected] of refused) {
    assert.throws(
      () => buildSpec({}, { hostname: "h", command: ["x"], ...options }),
      (error: unknown) => {
        assert.equal(error instanceof BelljarError && error.reason, "INVALID_ARGUMENT");
        assert.match(String(error), expected);
        return true;
      },
    );
  }
});

test("capabilities: ALL on either side, and names in any spelling", () => {
  const bounding = (add: string[], drop: string[]): readonly string[] =>
    buildProcess(image, { hostname: "h", capAdd: add, capDrop: drop }).capabilities.bounding;
  assert.equal(bounding([], []).length, 14);
  assert.equal(bounding(["ALL"], []).length, 41);
  assert.deepEqual(bounding([], ["all"]), []);
  assert.deepEqual(bounding(["kill", "CAP_CHOWN"], ["ALL"]), ["CAP_CHOWN", "CAP_KILL"]);
});
