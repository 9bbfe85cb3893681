import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../base/index.ts";
import { type AgentLink, type ConnectOptions, keptLink } from "./index.ts";

function linkCalled(agentInstance: string): AgentLink & { readonly end: () => void } {
  const { promise: closed, resolve } = Promise.withResolvers<undefined>();
  const hello = {
    agentVersion: "",
    kernelRelease: "",
    uptimeMs: 0,
    agentInstance,
    thawConfigures: true,
    rehearses: true,
    preparesProcesses: true,
  };
  return {
    hello,
    closed,
    call: async () => assert.fail("nobody is asked"),
    close: async () => resolve(undefined),
    end: () => resolve(undefined),
  };
}

const options: ConnectOptions = { socketPath: "/nowhere", timeoutMs: 1, log: silentLog };

test("the first connection is the link that there was, and every further one a new one", async () => {
  const connect = keptLink(linkCalled("kept"), async () => linkCalled("new"));
  assert.equal((await connect(options)).hello.agentInstance, "kept");
  assert.equal((await connect(options)).hello.agentInstance, "new");
});

test("a link that was lost before it was wanted, and none, are connected anew", async () => {
  const link = linkCalled("kept");
  const connect = keptLink(link, async () => linkCalled("new"));
  link.end();
  await link.closed;
  assert.equal((await connect(options)).hello.agentInstance, "new");
  assert.equal((await keptLink(undefined, async () => linkCalled("new"))(options)).hello.agentInstance, "new");
});
