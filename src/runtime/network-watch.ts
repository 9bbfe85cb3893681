/**
 * What has to be looked at again and again while a sandbox with a network runs: what its namespace has become, where that is somebody
 * else's; what the host names of its policy stand for; and how much of the guest's was denied, which is told as an event.
 */
import { messageChain, networkLimits } from "../base/index.ts";
import type { HostSandbox } from "../container/index.ts";
import type { GivenNetworkState } from "../network/index.ts";
import { refreshNetwork } from "../sandbox/index.ts";

export class NetworkFollower {
  readonly #sandbox: HostSandbox;
  #watch: { readonly of: string; stop(): Promise<void> } | undefined;
  /** Something has changed while the guest stood still. */
  #isBehind = false;
  #isAtWork = false;
  readonly #onDenied: (packets: number) => void;
  #timer: NodeJS.Timeout | undefined;
  #denied = 0;
  #unlisten: (() => void) | undefined;
  #toldHosts: string | undefined;

  /** @param onDenied told of how many packets were denied since the VM's start, when there are more */
  constructor(sandbox: HostSandbox, onDenied: (packets: number) => void) {
    this.#sandbox = sandbox;
    this.#onDenied = onDenied;
    sandbox.listen((before, after) => {
      if (before.state !== after.state && after.state === "running" && this.#isBehind) void this.#follow();
    });
  }

  /** Idempotent. */
  async start(): Promise<void> {
    const { network } = this.#sandbox.state;
    if (network === undefined) return;
    if (network.mode === "bridge" && network.links !== undefined) {
      this.#unlisten ??= this.#sandbox.networks.onBridgeChange(() => void this.#renameHosts());
    }
    this.#timer ??= setInterval(() => void this.look(), networkLimits.renewIntervalMs).unref();
    if (network?.mode !== "netns" || network.model === "none") return;
    if (this.#watch?.of === keyOf(network)) return;
    await this.stop();
    const watch = this.#sandbox.networks.watch(
      network,
      () => void this.#follow(),
      (error) => {
        const cause = messageChain(error).join(": ");
        this.#sandbox.log.warn("changes of the network namespace are not followed any more", { cause });
      },
    );
    this.#watch = { of: keyOf(network), stop: () => watch.stop() };
  }

  async stop(): Promise<void> {
    const watch = this.#watch;
    this.#watch = undefined;
    this.#unlisten?.();
    this.#unlisten = undefined;
    this.#toldHosts = undefined;
    if (this.#timer !== undefined) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      // The last there is to tell, before the rules go.
      await this.#count();
      this.#denied = 0;
    }
    await watch?.stop();
  }

  /** What comes by itself from time to time. */
  async look(): Promise<void> {
    const { state, networks } = this.#sandbox;
    await this.#count();
    if (this.#unlisten !== undefined) await this.#renameHosts();
    if (state.network === undefined || state.settings.network === undefined) return;
    await networks.renew(state.network, state.settings.network).catch((error: unknown) => {
      // What the names stood for before stays.
      this.#sandbox.log.debug("host names could not be looked up again", { cause: messageChain(error).join(": ") });
    });
  }

  /** Whoever this one is linked to may be somewhere else by now. */
  async #renameHosts(): Promise<void> {
    const sandbox = this.#sandbox;
    const { state, network } = sandbox.state;
    // One that stands still is told everything anew when it goes on.
    if (state !== "running" || network === undefined) return;
    const lines = sandbox.networks.hostLines(network).join("\n");
    if (lines === this.#toldHosts) return;
    this.#toldHosts = lines;
    await sandbox.machine.renameHosts().catch((error: unknown) => {
      sandbox.log.warn("names of linked sandboxes were not told", { cause: messageChain(error).join(": ") });
    });
  }

  async #count(): Promise<void> {
    const packets = await this.#sandbox.deniedPackets().catch((error: unknown) => {
      this.#sandbox.log.debug("denied packets were not counted", { cause: messageChain(error).join(": ") });
      return undefined;
    });
    if (packets === undefined || packets <= this.#denied) return;
    this.#denied = packets;
    this.#onDenied(packets);
  }

  async #follow(): Promise<void> {
    this.#isBehind = true;
    // Whoever is at work looks again.
    if (this.#isAtWork) return;
    this.#isAtWork = true;
    try {
      while (this.#isBehind && this.#watch !== undefined && this.#sandbox.state.state === "running") {
        this.#isBehind = false;
        await this.#refresh();
      }
    } finally {
      this.#isAtWork = false;
    }
  }

  async #refresh(): Promise<void> {
    const sandbox = this.#sandbox;
    try {
      await sandbox.exclusive("follow the network of", async () => {
        if (sandbox.state.state !== "running" || this.#watch === undefined) return;
        if (await refreshNetwork(sandbox, undefined)) sandbox.log.info("the network has changed with its namespace");
      });
    } catch (error) {
      if (sandbox.gone.aborted) return;
      sandbox.log.warn("a change of the network namespace was not followed", { cause: messageChain(error).join(": ") });
    }
  }
}

function keyOf({ path, namespaceId }: GivenNetworkState): string {
  return `${path} ${namespaceId}`;
}
