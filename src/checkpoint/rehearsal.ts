/**
 * Has a guest do what its copies will do first, before it is frozen: it is told who it is, and runs a container with one more process,
 * of its own root file system. What that brings into its memory (programs, modules, compiled code) its copies find there, and share.
 *
 * Nothing of it stays but that: the container is removed, and a copy is told anew who it is.
 */
import { randomBytes, randomUUID } from "node:crypto";
import type { AgentLink } from "../agent-client/index.ts";
import { BelljarError, checkpointLimits, linkLimits, machineIdOf, newId, sandboxLimits } from "../base/index.ts";
import { buildProcess, buildSpec } from "../container/index.ts";
import { ROOT_SERIAL } from "../sandbox/index.ts";

const CONTAINER = "rehearsal";
const EXEC = "exec";
const SIGKILL = 9;
const ENTROPY_BYTES = 64;

/** Commands of the guest's own busybox. */
const STAY = ["busybox", "sleep", "86400"];
const LOOK = ["busybox", "echo", "here"];

type Options = { readonly signal: AbortSignal; readonly timeoutMs: number };

/** @throws BelljarError what an agent's call throws, `TEMPLATE_FAILED` when a process of it ends otherwise than it must */
export async function rehearse(link: AgentLink, realtimeMs: number, signal: AbortSignal): Promise<void> {
  const options = { signal, timeoutMs: sandboxLimits.launchCallTimeoutMs };
  const hostname = CONTAINER;
  const sandboxId = newId();
  await link.call(
    "configureSandbox",
    { sandboxId, hostname, realtimeNs: BigInt(realtimeMs) * 1_000_000n, entropy: randomBytes(ENTROPY_BYTES) },
    options,
  );
  await runContainer(link, options);
  await link.call("freeze", { saving: true }, options);
  // As a copy is thawed; whoever gets this guest is somebody else anyway.
  const news = { event: "restored", sandboxId: newId(), generation: 1, bootId: randomUUID(), endProcesses: true };
  const sandbox = { hostname: "copy", clockAdvanceNs: 30_000_000n, entropy: randomBytes(ENTROPY_BYTES) };
  await link.call("thaw", { ...news, machineId: machineIdOf(news.sandboxId), sandbox }, options);
  await endContainer(link, options);
}

/** Who a copy will most likely be. */
export interface Rehearsed {
  readonly sandboxId: string;
  readonly generation: number;
  readonly realtimeMs: number;
}

/** The same in a copy that stands still, and goes on doing so: its containers are told nothing of who it is. */
export async function rehearseAside(
  link: AgentLink,
  { sandboxId, generation, realtimeMs }: Rehearsed,
  signal: AbortSignal,
): Promise<void> {
  const options = { signal, timeoutMs: sandboxLimits.launchCallTimeoutMs };
  await link.call("rehearse", { over: false }, options);
  const news = { event: "restored", sandboxId, generation, machineId: machineIdOf(sandboxId), bootId: randomUUID() };
  // As if the wake program had told the containers before.
  const told = { toldAtMs: BigInt(Math.round(realtimeMs)), endProcesses: false };
  const sandbox = { hostname: sandboxId, entropy: randomBytes(ENTROPY_BYTES), replaceHosts: true };
  await link.call("thaw", { ...news, ...told, sandbox }, options);
  await runContainer(link, options);
  if (link.hello.preparesProcesses) {
    await link.call("prepareProcess", { containerId: CONTAINER }, options);
    await runFurther(link, options);
  }
  await endContainer(link, options);
  await link.call("rehearse", { over: true }, options);
}

async function runContainer(link: AgentLink, options: Options): Promise<void> {
  const container = { containerId: CONTAINER };
  await link.call(
    "createContainer",
    {
      ...container,
      specJson: toJson(buildSpec({}, { hostname: CONTAINER, command: STAY })),
      rootfs: { layers: [{ serial: ROOT_SERIAL }], tmpfsBytes: BigInt(checkpointLimits.rehearsalTmpfsBytes) },
    },
    options,
  );
  await link.call("startContainer", container, options);
  await runFurther(link, options);
}

async function runFurther(link: AgentLink, options: Options): Promise<void> {
  const container = { containerId: CONTAINER };
  const processJson = toJson(buildProcess({}, { hostname: CONTAINER, command: LOOK }));
  const further = { ...container, processId: EXEC };
  await link.call("execProcess", { ...further, processJson }, options);
  // As whoever runs a command: its output is waited for, and its end.
  const reading = { ...further, stream: 1, maxBytes: 1024, waitMs: linkLimits.longPollMs };
  const [{ exitCode }] = await Promise.all([
    link.call("waitProcess", { ...further, waitMs: linkLimits.longPollMs }, options),
    link.call("readOutput", reading, options),
  ]);
  if (exitCode !== 0) throw new BelljarError("TEMPLATE_FAILED", `a process in the guest ended with status ${exitCode}`);
  await link.call("releaseProcess", further, options);
}

async function endContainer(link: AgentLink, options: Options): Promise<void> {
  const container = { containerId: CONTAINER };
  await link.call("signalProcess", { ...container, signal: SIGKILL, all: true }, options);
  await link.call("waitProcess", { ...container, waitMs: linkLimits.longPollMs }, options);
  await link.call("removeContainer", container, options);
}

function toJson(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
