/** What a lying agent says about files goes no further. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { AgentCaller, AgentMethod, AgentResponse } from "../agent-client/index.ts";
import { BelljarError, fileLimits } from "../base/index.ts";
import { AgentService, FileEventKind, FileType } from "../protocol/index.ts";
import { ContainerFiles } from "./files.ts";
import { guestFileCalls } from "./files-guest.ts";

type Methods = (typeof AgentService)["method"];

/** Every call is answered with this. */
function answering(answer: object): ContainerFiles {
  const agent: AgentCaller = {
    call: async <M extends AgentMethod>(method: M): Promise<AgentResponse<M>> =>
      Object.assign(create<Methods[M]["output"]>(AgentService.method[method].output), answer),
  };
  return new ContainerFiles(guestFileCalls(agent, "c1"));
}

const file = { type: FileType.REGULAR, mode: 0o644, uid: 0, gid: 0, size: 1n, modifiedMs: 1, linkTarget: "" };
const lies = (call: Promise<unknown>): Promise<void> => assert.rejects(call, { reason: "AGENT_PROTOCOL" });

test("files that cannot be are refused", async () => {
  const wrong = [
    undefined,
    { ...file, type: 99 },
    { ...file, type: FileType.UNSPECIFIED },
    { ...file, size: 1n << 60n },
    { ...file, type: FileType.LINK },
    { ...file, type: FileType.LINK, linkTarget: "a\0b" },
    { ...file, type: FileType.LINK, linkTarget: "x".repeat(5_000) },
  ];
  for (const info of wrong) await lies(answering({ info }).stat("/x"));
  const odd = await answering({ info: { ...file, mode: 0xffff_ffff, modifiedMs: Number.NaN } }).stat("/x");
  assert.deepEqual([odd.mode, odd.modifiedAtMs], [0o7777, 0]);
});

test("names lead nowhere, and a list has an end", async () => {
  for (const name of ["", ".", "..", "a/b", "/etc", "a\0", "x".repeat(256)]) {
    await lies(answering({ entries: [{ name, info: file }], more: false, unnameable: 0 }).list("/x"));
  }
  const twice = [
    { name: "a", info: file },
    { name: "a", info: file },
  ];
  await lies(answering({ entries: twice, more: false, unnameable: 0 }).list("/x"));
  // The same page again and again.
  await lies(answering({ entries: twice.slice(1), more: true, unnameable: 0 }).list("/x"));
  const many = Array.from({ length: fileLimits.pageMaxEntries + 1 }, () => ({ name: "a", info: file }));
  await lies(answering({ entries: many, more: false, unnameable: 0 }).list("/x"));
});

test("pieces are as long as they must be, and what is read whole is bounded", async () => {
  const piece = Buffer.alloc(fileLimits.chunkMaxBytes);
  await lies(answering({ info: file, data: Buffer.alloc(fileLimits.chunkMaxBytes + 1), end: true }).read("/x"));
  await lies(answering({ info: file, data: piece.subarray(1), end: false }).read("/x"));
  await assert.rejects(answering({ info: file, data: piece, end: false }).read("/x"), { reason: "FILE_TOO_LARGE" });
  assert.equal((await answering({ info: file, data: piece, end: true }).read("/x")).length, piece.length);
});

test("events come in order, with names that can be", async () => {
  const event = { sequence: 1n, kind: FileEventKind.CREATED, name: "a" };
  const wrong = [
    { ...event, sequence: 0n },
    { ...event, kind: 77 },
    { ...event, name: "../x" },
    { ...event, name: "x".repeat(300) },
  ];
  for (const each of wrong) await lies(answering({ events: [each] }).watch("/x"));
  await lies(answering({ events: [event, event] }).watch("/x"));
});

test("what cannot be asked is not asked", async () => {
  const files = answering({});
  for (const mode of [-1, 0o10000, 1.5]) {
    await assert.rejects(files.setAttributes("/x", { mode }), { reason: "INVALID_ARGUMENT" });
  }
  await assert.rejects(files.setAttributes("/x", { modifiedAtMs: Number.NaN }), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(files.calls.read({ id: "a", offset: -1 }), { reason: "INVALID_ARGUMENT" });
  const failing: AgentCaller = {
    call: async () => {
      throw new BelljarError("CONTAINER_DISK_FULL", "full");
    },
  };
  const full = new ContainerFiles(guestFileCalls(failing, "c1"));
  await assert.rejects(full.write("/x", "data"), { reason: "CONTAINER_DISK_FULL" });
});

test("directories above a new file are made where they are missing, unless told otherwise", async () => {
  const asked: string[] = [];
  const agent = {
    call: async (method: AgentMethod, request: object) => {
      const path = "path" in request ? String(request.path) : "";
      asked.push(`${method} ${path}`);
      const isMissing = method === "openFile" && !asked.includes("makeDirectory /a/b");
      if (isMissing) throw new BelljarError("FILE_NOT_FOUND", `${path} is not there`);
      return create(AgentService.method[method].output);
    },
  };
  const files = new ContainerFiles(guestFileCalls(agent as AgentCaller, "c1"));
  await assert.rejects(files.write("/a/b/c", "", { parents: false }), { reason: "FILE_NOT_FOUND" });
  await files.write("/a/b/c", "");
  assert.deepEqual(
    asked.filter((each) => !each.startsWith("closeFile")),
    ["openFile /a/b/c", "openFile /a/b/c", "makeDirectory /a/b", "openFile /a/b/c", "commitFile "],
  );
});
