/**
 * Decides between KVM and TCG. That /dev/kvm exists proves nothing: on some virtual hosts QEMU asserts when it sets up a CPU,
 * on others firmware runs and a stock kernel spins for ever. So `auto` boots the guest's own kernel under KVM once, with
 * nothing to boot into, and remembers what happened; docs/decisions/acceleration-probe.md has the reasons and figures.
 *
 * Invariant: "KVM does not work" never comes from a fault of another kind (no QEMU, no memory, a cancelled wait): those are
 * thrown, and not remembered.
 */
import { open, readFile } from "node:fs/promises";
import { BelljarError, isSystemError, type Log, systemClock, throwIfAborted, vmmLimits } from "../../base/index.ts";
import type {
  Acceleration,
  AccelerationFinding,
  AccelerationProbe,
  BootConfig,
  Hypervisor,
  Vm,
  VmEnd,
} from "../interface.ts";
import { makeProbeDir, removeLostProbes } from "./probe-directory.ts";
import { forget, type ProbeAnswer, recall, remember } from "./probe-memory.ts";

export interface AccelerationProbeDeps {
  readonly hypervisor: Hypervisor;
  /** Where the answer is remembered; made when it is missing. */
  readonly cacheDir: string;
  /** The guest image's kernel; asked only when there is something to prove. */
  readonly boot: () => Promise<BootConfig>;
  readonly log: Log;
  /** Without a word of the guest's kernel by then, it does not run. */
  readonly firstWordTimeoutMs?: number;
  /** A kernel that is not up by then does not work either. */
  readonly endTimeoutMs?: number;
  readonly kvmDevice?: string;
}

export function createAccelerationProbe(deps: AccelerationProbeDeps): AccelerationProbe {
  return {
    resolve: async (wanted, signal) => {
      throwIfAborted(signal);
      if (wanted === "tcg") return { acceleration: "tcg", explanation: "asked for", remembered: false };
      const finding = await find(deps, signal);
      if (wanted === "kvm" && finding.acceleration !== "kvm") {
        throw new BelljarError("ACCELERATION_UNAVAILABLE", `KVM does not work on this host: ${finding.explanation}`, {
          facts: { wanted },
        });
      }
      return finding;
    },
  };
}

async function find(deps: AccelerationProbeDeps, signal: AbortSignal | undefined): Promise<AccelerationFinding> {
  await removeLostProbes(deps.log);
  // Looked at every time: rights differ from user to user, and modules come and go.
  const obstacle = await kvmObstacle(deps.kvmDevice ?? "/dev/kvm");
  if (obstacle !== undefined) return { acceleration: "tcg", explanation: obstacle, remembered: false };
  const { name, version } = await deps.hypervisor.info();
  const known = await recall(deps.cacheDir, `${name} ${version}`);
  if (known !== undefined) return finding(known, true);
  const answer = await tryKvm(deps, signal);
  deps.log.info("probed KVM", { works: answer.works, explanation: answer.explanation });
  if (answer.lasting) {
    // A host that cannot remember pays with a probe each time, and works all the same.
    await remember(deps.cacheDir, `${name} ${version}`, answer).catch((error: unknown) => {
      deps.log.warn("the answer of the KVM probe could not be kept", { error: String(error) });
    });
  } else await forget(deps.cacheDir);
  return finding(answer, false);
}

function finding(answer: ProbeAnswer, remembered: boolean): AccelerationFinding {
  const acceleration: Acceleration = answer.works ? "kvm" : "tcg";
  return { acceleration, explanation: answer.explanation, remembered };
}

/** What keeps this user from KVM before any guest has been tried. */
async function kvmObstacle(device: string): Promise<string | undefined> {
  try {
    await (await open(device, "r+")).close();
    return undefined;
  } catch (error) {
    if (!isSystemError(error)) throw error;
    if (error.code === "ENOENT") return `this host has no ${device}`;
    if (error.code === "EACCES" || error.code === "EPERM") {
      return `this user may not open ${device} (on Debian, members of the group kvm may)`;
    }
    return `${device} cannot be opened: ${error.code}`;
  }
}

interface Verdict extends ProbeAnswer {
  /** False for an answer that may be another one the next time. */
  readonly lasting: boolean;
}

async function tryKvm(deps: AccelerationProbeDeps, signal: AbortSignal | undefined): Promise<Verdict> {
  const { kernelPath } = await deps.boot();
  await using dir = await makeProbeDir();
  const beforeMs = systemClock.monotonicMs();
  let vm: Vm;
  try {
    vm = await deps.hypervisor.start(
      {
        id: dir.id,
        runDir: dir.path,
        acceleration: "kvm",
        memoryMib: PROBE_MEMORY_MIB,
        cpus: 1,
        disks: [],
        boot: {
          kernelPath,
          // No initramfs and no root: the kernel brings itself up, finds nothing to run, panics, and ends the VM. It talks
          // as early and as steadily as it can, so that silence means something.
          kernelArguments: ["console=ttyS0", "earlyprintk=ttyS0", "loglevel=6", "panic=-1"],
        },
      },
      { signal },
    );
  } catch (error) {
    if (!(error instanceof BelljarError) || error.reason !== "VMM_START_FAILED") throw error;
    return { works: false, explanation: error.message, lasting: true };
  }
  try {
    return await watch(vm, deps, systemClock.monotonicMs() - beforeMs, signal);
  } finally {
    await vm.kill();
  }
}

const PROBE_MEMORY_MIB = 128;
/** Between two looks at the probe's console. */
const LOOK_INTERVAL_MS = 50;

/** A host that takes long to start a VMM, being slow or busy, gets so many times as long for each stage of the guest. */
const PATIENCE = { firstWord: 10, end: 30 };

async function watch(
  vm: Vm,
  deps: AccelerationProbeDeps,
  startTookMs: number,
  signal: AbortSignal | undefined,
): Promise<Verdict> {
  const firstWordTimeoutMs = patient(
    deps.firstWordTimeoutMs ?? vmmLimits.kvmProbeFirstWordMs,
    PATIENCE.firstWord,
    startTookMs,
  );
  const endTimeoutMs = patient(deps.endTimeoutMs ?? vmmLimits.kvmProbeEndTimeoutMs, PATIENCE.end, startTookMs);
  const startMs = systemClock.monotonicMs();
  let end: VmEnd | undefined;
  void vm.ended.then((seen) => {
    end = seen;
  });
  for (;;) {
    const waitedMs = systemClock.monotonicMs() - startMs;
    const console = vm.consoleTail();
    if (end !== undefined) return judgeEnd(end);
    if (console.includes("Kernel panic - ")) return WORKS;
    if (waitedMs > firstWordTimeoutMs && !console.includes("Linux version")) {
      const explanation = `under KVM a guest's kernel did not begin to run within ${firstWordTimeoutMs} ms`;
      return { works: false, explanation, lasting: await hadTheCpu(vm, waitedMs) };
    }
    if (waitedMs > endTimeoutMs) {
      const explanation = `under KVM a guest's kernel was not up after ${endTimeoutMs} ms`;
      return { works: false, explanation, lasting: await hadTheCpu(vm, waitedMs) };
    }
    await systemClock.sleep(LOOK_INTERVAL_MS, signal).catch(() => throwIfAborted(signal));
  }
}

function patient(timeoutMs: number, times: number, startTookMs: number): number {
  return Math.round(Math.max(timeoutMs, times * startTookMs));
}

/** Whether the guest ran for at least half of the time: if not, a busy host is to blame, and the next probe may say yes. */
async function hadTheCpu(vm: Vm, waitedMs: number): Promise<boolean> {
  const { pid, vcpuThreadIds } = await vm.info();
  // A kernel may have been built without this file; then the time limit alone decides.
  const text = await readFile(`/proc/${pid}/task/${vcpuThreadIds[0]}/schedstat`, "utf8").catch(() => undefined);
  if (text === undefined) return true;
  const ranMs = Number(text.split(" ")[0]) / 1e6;
  return ranMs > waitedMs / 2;
}

const WORKS: Verdict = { works: true, explanation: "a guest's kernel came up under KVM", lasting: true };

function judgeEnd(end: VmEnd): Verdict {
  if (end.cause === "guest") {
    return end.panic ? WORKS : { works: false, explanation: `under KVM, ${end.detail} at once`, lasting: true };
  }
  if (end.cause === "requested") return { works: false, explanation: "the probe was ended", lasting: false };
  // Ended from outside, it says nothing about KVM.
  const lasting = !/\bwas ended by SIG(?:KILL|TERM|INT|HUP)\b/.test(end.detail);
  return { works: false, explanation: `under KVM, ${end.detail}`, lasting };
}
