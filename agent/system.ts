/** The guest itself: who it is, what time it has, how it is doing, its end. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { BelljarError } from "../src/base/errors.ts";
import type { ApplyIdentity } from "./identity.ts";
import type { RunTool } from "./tools.ts";

export interface SystemDeps {
  readonly runTool: RunTool;
  readonly applyIdentity: ApplyIdentity;
  readonly procDir: string;
  /** The agent's own clock, in milliseconds since the epoch. */
  readonly nowMs: () => number;
}

export interface SandboxIdentity {
  readonly hostname: string;
  readonly realtimeNs: bigint;
  /** The clock stood still for so long. */
  readonly clockAdvanceNs: bigint;
  readonly entropy: Uint8Array;
}

export interface MemoryFacts {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

const ENTROPY_MAX_BYTES = 512;
/** A clock that is nearer than this is left alone: time should not jump in a guest whose host has only changed its owner. */
const CLOCK_TOLERANCE_MS = 20;

export class System {
  readonly #deps: SystemDeps;

  constructor(deps: SystemDeps) {
    this.#deps = deps;
  }

  async configure(identity: SandboxIdentity): Promise<void> {
    const receivedMs = performance.now();
    if (identity.hostname !== "") {
      if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(identity.hostname)) {
        throw new BelljarError("INVALID_ARGUMENT", "the host name is not valid");
      }
      await writeFile(`${this.#deps.procDir}/sys/kernel/hostname`, identity.hostname);
    }
    if (identity.entropy.length > ENTROPY_MAX_BYTES) {
      throw new BelljarError("INVALID_ARGUMENT", `more than ${ENTROPY_MAX_BYTES} bytes of entropy`);
    }
    const { realtimeNs, clockAdvanceNs } = identity;
    const beganMs = realtimeNs === 0n ? this.#deps.nowMs() + Number(clockAdvanceNs) / 1e6 : Number(realtimeNs) / 1e6;
    const realtimeMs = (): number => beganMs + (performance.now() - receivedMs);
    const isRight = (): boolean => Math.abs(realtimeMs() - this.#deps.nowMs()) < CLOCK_TOLERANCE_MS;
    if (identity.entropy.length === 0 && isRight()) return;
    await this.#deps.applyIdentity({
      entropy: identity.entropy,
      realtimeMs: () => (isRight() ? undefined : realtimeMs()),
    });
  }

  /** Nanoseconds since the epoch. */
  realtimeNs(): bigint {
    return BigInt(Math.round(this.#deps.nowMs() * 1e6));
  }

  async memory(): Promise<MemoryFacts> {
    const text = await readFile(`${this.#deps.procDir}/meminfo`, "utf8");
    const read = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(text)?.[1] ?? 0) * 1024;
    return { totalBytes: read("MemTotal"), availableBytes: read("MemAvailable") };
  }

  /** Text of the network devices of the namespace that all containers are in. */
  async networkDevices(): Promise<string> {
    return await readFile(`${this.#deps.procDir}/net/dev`, "utf8");
  }

  async processCount(): Promise<number> {
    return (await readdir(this.#deps.procDir)).filter((name) => /^[0-9]+$/.test(name)).length;
  }

  async kernelRelease(): Promise<string> {
    return (await readFile(`${this.#deps.procDir}/sys/kernel/osrelease`, "utf8")).trim();
  }

  async uptimeMs(): Promise<number> {
    return Math.round(Number.parseFloat(await readFile(`${this.#deps.procDir}/uptime`, "utf8")) * 1000);
  }

  /** The agent is the last to be killed; the containers' processes get a value of their own. */
  async protectAgent(): Promise<void> {
    await writeFile(`${this.#deps.procDir}/self/oom_score_adj`, "-1000");
  }

  async powerOff(): Promise<void> {
    await this.#deps.runTool("busybox", ["sync"]);
    await this.#deps.runTool("busybox", ["poweroff", "-f"]);
  }
}
