/** Brings the containers of the state and those of the guest together, after another process was the owner. */
import type { AgentResponse } from "../agent-client/index.ts";
import { BelljarError, messageChain, streamLimits } from "../base/index.ts";
import {
  type ContainerState,
  changeContainer,
  type ExecRecord,
  finishGrowth,
  noteExit,
  stoppedState,
  toMilliseconds,
  toStatus,
  unplugUnusedShared,
} from "../container/index.ts";
import { ContainerPhase } from "../protocol/index.ts";
import { guestIdOf } from "../sandbox/index.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";

type GuestContainer = AgentResponse<"listContainers">["containers"][number];

/** @returns whether any container was ever started in this guest */
export async function reconcileContainers(managed: ManagedSandbox, signal: AbortSignal): Promise<boolean> {
  const { sandbox } = managed;
  const { containers: found } = await sandbox.call("listContainers", {}, { signal });
  for (const { id, pending } of sandbox.state.containers) {
    const container = managed.container(id);
    const guest = found.find((each) => each.containerId === guestIdOf(container.state));
    if (pending?.operation === "create" || pending?.operation === "delete") {
      await container.remove();
      sandbox.log.info("a container that was half made or half deleted was removed", { container: id });
      continue;
    }
    await adopt(managed, container.state, guest);
    if (container.state.inGuest) await growOn(managed, id);
    if (pending?.operation !== "stop") continue;
    await container.watch();
    await container.stop({ timeoutMs: 0, force: true });
  }
  const known = new Set(sandbox.state.containers.map(guestIdOf));
  for (const { containerId } of found) {
    if (known.has(containerId)) continue;
    await sandbox.call("removeContainer", { containerId }, { signal });
    sandbox.log.info("a container that belongs to nobody was removed", { container: containerId.slice(0, 64) });
  }
  await unplugUnused(managed);
  return found.some(({ phase }) => phase !== ContainerPhase.UNSPECIFIED && phase !== ContainerPhase.READY);
}

async function adopt(managed: ManagedSandbox, state: ContainerState, guest: GuestContainer | undefined): Promise<void> {
  const { sandbox } = managed;
  const { id } = state;
  const init = guest?.processes.find((process) => process.processId === "");
  if (guest === undefined || guest.phase === ContainerPhase.UNSPECIFIED) {
    const error = new BelljarError("AGENT_FAILED", "the guest does not have this container any more");
    await changeContainer(sandbox, id, (now) => ({
      ...(now.inGuest && now.state !== "stopped" ? stoppedState(now, error, sandbox.clock.nowMs()) : now),
      pending: now.pending?.operation === "stop" ? now.pending : undefined,
      inGuest: false,
      processes: [],
    }));
    return;
  }
  const processes = execRecords(guest);
  const runs = guest.phase === ContainerPhase.RUNNING || guest.phase === ContainerPhase.PAUSED;
  const frozen = guest.phase === ContainerPhase.PAUSED;
  await changeContainer(sandbox, id, (now) => {
    const wasStarting = now.pending?.operation === "start";
    const base: ContainerState = { ...now, inGuest: true, processes, pending: keptIntent(now) };
    if (!runs || init === undefined || init.pid < 1) return base;
    return {
      ...base,
      state: frozen ? "paused" : "running",
      frozen,
      pid: init.pid,
      ...(wasStarting
        ? {
            starts: now.starts + 1,
            startedAtMs: toMilliseconds(init.startedAtNs),
            status: undefined,
            end: undefined,
          }
        : {}),
    };
  });
  if (guest.phase !== ContainerPhase.STOPPED || init?.end?.ended !== true) return;
  const { starts, state: now } = managed.container(id).state;
  // It ended while nobody looked, or before its start was written down.
  if (now !== "stopped") await noteExit(sandbox, id, starts, toStatus(init.end), undefined);
}

/** Room that was about to be made. Without it the container runs as before, and gets it when it is started anew. */
async function growOn({ sandbox }: ManagedSandbox, id: string): Promise<void> {
  await finishGrowth(sandbox, id).catch((error: unknown) => {
    sandbox.log.warn("a container could not be given room", { container: id, cause: messageChain(error).join(": ") });
  });
}

/** Its further processes, as the guest has them. */
export function execRecords(guest: GuestContainer): readonly ExecRecord[] {
  return guest.processes
    .filter((process) => process.processId !== "" && process.pid > 0)
    .slice(0, streamLimits.processesMax)
    .map((process) => ({
      id: process.processId.slice(0, 64),
      pid: process.pid,
      startedAtMs: toMilliseconds(process.startedAtNs),
      tty: process.terminal,
      stdin: process.stdin,
    }));
}

/** Only an intent to stop is acted upon; every other one has found its result. */
function keptIntent(state: ContainerState): ContainerState["pending"] {
  return state.pending?.operation === "stop" ? state.pending : undefined;
}

/** Disks that were plugged for a container that is gone, or just before their owner died. */
async function unplugUnused(managed: ManagedSandbox): Promise<void> {
  const { sandbox } = managed;
  await sandbox.devices.reconcile(sandbox.state.containers.filter(({ inGuest }) => inGuest));
  if (sandbox.state.settings.vhostUser === true) await sandbox.devices.endLostBackEnds();
  const used = new Set(sandbox.devices.save().map(({ id }) => id));
  const { machine } = sandbox;
  for (const { serial } of machine.vm.save().disks) {
    if (serial === "root" || used.has(serial)) continue;
    await machine.whileAlive(machine.vm.unplugDisk(serial)).catch((error: unknown) => {
      sandbox.log.debug("a disk was not plugged after all", { serial, cause: messageChain(error).join(": ") });
    });
  }
  await unplugUnusedShared(sandbox);
  await sandbox.update((state) => ({ ...state, vm: sandbox.machine.vm.save() }));
}
