/** Which calls are made again when the link is lost, and which are not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError, silentLog } from "../base/index.ts";
import { AgentClient } from "./client.ts";
import type { AgentLink, ConnectAgent } from "./connect.ts";
import type { AgentMethod } from "./link.ts";

/** Every link is lost with its first call. */
function client(instances: readonly string[] = []): { agent: AgentClient; calls: string[] } {
  const calls: string[] = [];
  let links = 0;
  const connect: ConnectAgent = async () => {
    const agentInstance = instances[links] ?? "a";
    links += 1;
    const closed = Promise.withResolvers<BelljarError | undefined>();
    const link: AgentLink = {
      hello: {
        agentVersion: "",
        kernelRelease: "",
        uptimeMs: 0,
        agentInstance,
        thawConfigures: true,
        rehearses: true,
        preparesProcesses: true,
      },
      closed: closed.promise,
      call: async (method) => {
        calls.push(method);
        const error = new BelljarError("AGENT_DISCONNECTED", "cut");
        closed.resolve(error);
        throw error;
      },
      close: async () => closed.resolve(undefined),
    };
    return link;
  };
  return { agent: new AgentClient({ socketPath: "", timeoutMs: 1, log: silentLog }, connect), calls };
}

const REPEATED: readonly (readonly [AgentMethod, object])[] = [
  ["listContainers", {}],
  ["pauseContainer", {}],
  ["resumeContainer", {}],
  ["updateContainer", {}],
  ["growStorage", {}],
  ["getContainerStats", {}],
  ["prepareProcess", {}],
  ["releaseProcess", {}],
  ["signalProcess", { signal: 9 }],
  ["readOutput", {}],
];
const ONCE: readonly (readonly [AgentMethod, object])[] = [
  ["createContainer", {}],
  ["startContainer", {}],
  ["execProcess", {}],
  ["shutdown", {}],
  ["signalProcess", { signal: 10 }],
  ["readOutput", { follow: true }],
];

test("what does no harm the second time is tried again, not for ever", async () => {
  for (const [method, request] of REPEATED) {
    const { agent, calls } = client();
    await assert.rejects(agent.call(method, request), { reason: "AGENT_DISCONNECTED" });
    assert.equal(calls.length, 5, method);
    await agent.close();
  }
});

test("what might have been carried out is not done twice", async () => {
  for (const [method, request] of ONCE) {
    const { agent, calls } = client();
    await assert.rejects(agent.call(method, request), { reason: "AGENT_DISCONNECTED" });
    assert.deepEqual(calls, [method]);
    await agent.close();
  }
});

test("an agent that has started anew is not taken for the old one", async () => {
  const { agent, calls } = client(["a", "b"]);
  await assert.rejects(agent.call("listContainers", {}), { reason: "AGENT_FAILED" });
  assert.deepEqual(calls, ["listContainers"]);
  await agent.close();
});
