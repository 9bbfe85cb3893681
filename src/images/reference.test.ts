import assert from "node:assert/strict";
import { test } from "node:test";
import { parseReference, remoteName, storedName } from "./reference.ts";

const DIGEST = `sha256:${"ab".repeat(32)}`;

test("names are read as docker reads them", () => {
  const table: readonly (readonly [text: string, stored: string, remote: string])[] = [
    ["busybox", "busybox:latest", "docker.io/library/busybox:latest"],
    ["docker.io/busybox", "busybox:latest", "docker.io/library/busybox:latest"],
    ["index.docker.io/library/busybox:1", "busybox:1", "docker.io/library/busybox:1"],
    ["team/app", "team/app:latest", "docker.io/team/app:latest"],
    ["localhost/app", "localhost/app:latest", "localhost/app:latest"],
    ["host:5000/a/b:v1", "host:5000/a/b:v1", "host:5000/a/b:v1"],
    ["[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"],
    [`app@${DIGEST}`, `app@${DIGEST}`, `docker.io/library/app@${DIGEST}`],
    [`app:v1@${DIGEST}`, "app:v1", `docker.io/library/app@${DIGEST}`],
  ];
  for (const [text, stored, remote] of table) {
    assert.equal(storedName(parseReference(text)), stored);
    assert.equal(remoteName(parseReference(text)), remote);
  }
});

test("what is no name is refused", () => {
  for (const text of [
    "",
    "UPPER",
    "a b",
    "../x",
    "a//b",
    "-x",
    "a:",
    "a:b:c",
    "a@sha256:12",
    "a@md5:00",
    "--help",
    "x".repeat(300),
  ]) {
    assert.throws(() => parseReference(text), { reason: "INVALID_ARGUMENT" }, text);
  }
});
