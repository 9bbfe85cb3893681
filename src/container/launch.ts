/** Processes of a container begin: its first one, and those that `exec` adds. */
import { BelljarError, newId, sandboxLimits } from "../base/index.ts";
import type { ProcessConfig, TerminalSize } from "./config.ts";
import { changeContainer, stateOf } from "./container-state.ts";
import { execConfig } from "./exec-config.ts";
import { buildProcess, commandLine } from "./spec.ts";
import type { ExecRecord, HostSandbox } from "./state.ts";
import { toMilliseconds } from "./status.ts";

export interface LaunchOptions {
  readonly signal?: AbortSignal | undefined;
  readonly terminalSize?: TerminalSize | undefined;
}

interface Started {
  readonly pid: number;
  readonly startedAtNs: bigint;
}

/** @throws BelljarError `COMMAND_NOT_FOUND`, `COMMAND_NOT_EXECUTABLE`, or what the agent answered */
export async function startFirst(sandbox: HostSandbox, id: string, options: LaunchOptions): Promise<Started> {
  const { config, imageConfig } = stateOf(sandbox, id);
  const call = sandbox.call(
    "startContainer",
    { containerId: id, stdin: config.stdin === true, ...sizeOf(options) },
    { signal: options.signal, timeoutMs: sandboxLimits.launchCallTimeoutMs },
  );
  return await launched(call, commandLine(imageConfig, config)[0]);
}

/** Runs a further command in it, and writes it down. */
export async function startFurther(
  sandbox: HostSandbox,
  containerId: string,
  config: ProcessConfig,
  options: LaunchOptions & { readonly stdin?: boolean | undefined },
): Promise<ExecRecord> {
  const { imageConfig, config: own } = stateOf(sandbox, containerId);
  const id = newId();
  const { hostname } = sandbox.state.settings;
  const process = buildProcess(imageConfig, { ...execConfig(own, config), hostname });
  const stdin = options.stdin === true;
  const call = sandbox.call(
    "execProcess",
    {
      containerId,
      processId: id,
      processJson: Buffer.from(JSON.stringify(process)),
      user: config.user ?? own.user ?? imageConfig.user,
      stdin,
      ...sizeOf(options),
    },
    { signal: options.signal, timeoutMs: sandboxLimits.launchCallTimeoutMs },
  );
  const { pid, startedAtNs } = await launched(call, process.args[0]);
  const record = { id, pid, startedAtMs: toMilliseconds(startedAtNs), tty: config.tty === true, stdin };
  // It runs already, and the agent has it on its list: a disk that fails changes nothing about that.
  await changeContainer(sandbox, containerId, (state) => ({ ...state, processes: [...state.processes, record] }), {
    force: true,
  });
  return record;
}

/** The runtime in the guest does not always say which command it could not execute. */
async function launched<T extends Started>(call: Promise<T>, command: string | undefined): Promise<T> {
  let started: T;
  try {
    started = await call;
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (error.reason !== "COMMAND_NOT_FOUND" && error.reason !== "COMMAND_NOT_EXECUTABLE") throw error;
    const what = error.reason === "COMMAND_NOT_FOUND" ? "does not exist in the container" : "cannot be executed";
    throw new BelljarError(error.reason, `the command ${JSON.stringify(command)} ${what}`, { cause: error });
  }
  if (started.pid >= 1) return started;
  throw new BelljarError("AGENT_PROTOCOL", "the agent started a process without a pid");
}

function sizeOf({ terminalSize }: LaunchOptions): { terminalSize?: TerminalSize } {
  return terminalSize === undefined ? {} : { terminalSize: { ...terminalSize } };
}
