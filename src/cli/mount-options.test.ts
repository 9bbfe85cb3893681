/** `-v` and `--mount`: docker's forms, and docker's errors. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { parseMount, parseVolume } from "./mount-options.ts";

test("-v: paths are binds, names are volumes, options come last", () => {
  assert.deepEqual(parseVolume("data:/data", "/here"), { type: "volume", source: "data", target: "/data" });
  assert.deepEqual(parseVolume("/data", "/here"), { type: "volume", target: "/data" });
  const bind = { type: "bind", target: "/x", createSource: true };
  assert.deepEqual(parseVolume("./dir:/x:ro", "/here"), { ...bind, source: "/here/dir", readOnly: true });
  assert.deepEqual(parseVolume(".:/x", "/here"), { ...bind, source: "/here" });
  assert.deepEqual(parseVolume("/a/../b:/x:copy,z", "/here"), { ...bind, source: "/b", how: "copy" });
  assert.deepEqual(parseVolume("v:/x:nocopy,ro", "/"), {
    type: "volume",
    source: "v",
    target: "/x",
    noCopy: true,
    readOnly: true,
  });
  for (const wrong of [
    "",
    ":",
    "a:",
    ":/x",
    "a:/b:ro:x",
    "a:b",
    "data",
    "a:/b:foo",
    "a:/b:copy",
    "/a:/b:nocopy",
    "a:/b:constructor",
  ]) {
    assert.throws(() => parseVolume(wrong, "/here"), { reason: "INVALID_ARGUMENT" }, wrong);
  }
});

test("--mount: keys of docker's, in any spelling that it has; a comma may be quoted", () => {
  assert.deepEqual(parseMount("source=data,target=/data", "/"), { type: "volume", source: "data", target: "/data" });
  assert.deepEqual(parseMount("type=bind,src=./a,dst=/b,readonly,bind-propagation=rprivate", "/here"), {
    type: "bind",
    source: "/here/a",
    target: "/b",
    readOnly: true,
    propagation: "rprivate",
  });
  assert.deepEqual(parseMount('type=bind,"src=/a,b",destination=/c,ro=false,how=disk,size=1g', "/"), {
    type: "bind",
    source: "/a,b",
    target: "/c",
    readOnly: false,
    how: "disk",
    sizeBytes: 2 ** 30,
  });
  assert.deepEqual(parseMount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770", "/"), {
    type: "tmpfs",
    target: "/t",
    sizeBytes: 64 * 2 ** 20,
    mode: 0o1770,
  });
  assert.deepEqual(parseMount("type=disk,src=/i.img,dst=/d,fstype=xfs,option=nouuid,option=logbufs=8", "/"), {
    type: "disk",
    source: "/i.img",
    target: "/d",
    fileSystem: "xfs",
    options: ["nouuid", "logbufs=8"],
  });
  const wrong = [
    ["type=bind,src=/a", /target is required/],
    ["type=bind,dst=/a", /source is required/],
    ["type=nfs,dst=/a", /type is one of/],
    ["dst=/a,foo=1", /unexpected key "foo"/],
    ["dst=/a,__proto__=1", /unexpected key/],
    ["dst=/a,source", /must be a key=value pair/],
    ["dst=/a,readonly=maybe", /invalid value for readonly/],
    ["type=tmpfs,dst=/a,tmpfs-mode=9", /not an octal mode/],
    ["", /target is required/],
  ] as const;
  for (const [text, message] of wrong) assert.throws(() => parseMount(text, "/"), { message }, text);
});
