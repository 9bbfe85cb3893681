/**
 * Puts a sandbox to sleep that nobody has wanted anything of for its idle timeout: no call to its guest, no attached reader, nothing over
 * its network, no connection that is open. What its own processes do is no activity.
 */
import { type Clock, hibernationLimits, messageChain } from "../base/index.ts";
import type { HostSandbox } from "../container/index.ts";
import type { Networks } from "../network/index.ts";
import type { Hibernation } from "./hibernation.ts";

export interface IdleWatchDeps {
  readonly sandbox: HostSandbox;
  readonly hibernation: Hibernation;
  readonly networks: Pick<Networks, "traffic">;
  readonly clock: Clock;
}

export class IdleWatch {
  readonly #deps: IdleWatchDeps;
  #stop: AbortController | undefined;
  #packets = 0;

  constructor(deps: IdleWatchDeps) {
    this.#deps = deps;
  }

  /** Idempotent while it runs; nothing for a sandbox without a timeout. */
  start(): void {
    if (this.#stop !== undefined || this.#deps.sandbox.state.settings.idleTimeoutMs === undefined) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#deps.hibernation.activity.touch();
    void this.#watch(stop.signal);
  }

  stop(): void {
    this.#stop?.abort();
    this.#stop = undefined;
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { sandbox, hibernation, clock } = this.#deps;
    const { activity } = hibernation;
    for (;;) {
      const timeoutMs = sandbox.state.settings.idleTimeoutMs;
      if (timeoutMs === undefined) return;
      const { idleLookMinMs, idleLookMaxMs } = hibernationLimits;
      await clock.sleep(Math.min(Math.max(timeoutMs / 4, idleLookMinMs), idleLookMaxMs), signal).catch(() => {});
      if (signal.aborted || sandbox.gone.aborted) return;
      const isIdle = (): boolean => sandbox.state.state === "running" && activity.idleMs >= timeoutMs;
      try {
        if (sandbox.state.state !== "running" || (await this.#hasTraffic())) activity.touch();
        else if (isIdle()) await hibernation.hibernate({ ifStill: isIdle });
      } catch (error) {
        if (sandbox.gone.aborted) return;
        // It is tried again after as long a time.
        activity.touch();
        sandbox.log.warn("an idle sandbox could not be hibernated", { cause: messageChain(error).join(": ") });
      }
    }
  }

  async #hasTraffic(): Promise<boolean> {
    const { network, vm } = this.#deps.sandbox.state;
    if (network === undefined || vm === undefined) return false;
    const { packets, connections } = await this.#deps.networks.traffic(network, vm.vmm.pid);
    const isNews = packets !== this.#packets;
    this.#packets = packets;
    return isNews || connections > 0;
  }
}
