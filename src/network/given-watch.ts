/**
 * Follows what changes in a given namespace: the kernel's own news of links, addresses and routes, read by a program in it that dies
 * with us. News come in bursts, and we make some ourselves: what they were is not looked at, only that it is time to look.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { networkLimits, publishStep } from "../base/index.ts";
import { findNamespace } from "./given-namespace.ts";
import type { GivenNetworkState } from "./given-state.ts";

export interface NetworkWatch {
  stop(): Promise<void>;
}

/**
 * `onChange` may come a little after the change, once for several, and when nothing has changed that matters. After `onFailure` nothing is
 * followed any more.
 */
export function watchGiven(
  { path, namespaceId }: GivenNetworkState,
  onChange: () => void,
  onFailure: (error: unknown) => void,
): NetworkWatch {
  let child: ChildProcess | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      if (!isStopped) onChange();
    }, networkLimits.watchSettleMs).unref();
  };
  const run = async (): Promise<void> => {
    while (!isStopped) {
      const place = await findNamespace(path, namespaceId);
      // Without its namespace the VM would not run either: this one is ending.
      if (place === undefined) return;
      // What nobody has seen yet.
      soon();
      await publishStep("child", "watch a network namespace", () => follow(place));
      if (isStopped) return;
      await new Promise((resolve) => setTimeout(resolve, networkLimits.watchRestartMs).unref());
    }
  };
  const follow = (place: string): Promise<void> =>
    new Promise((resolve) => {
      const words = [
        "--pdeathsig",
        "KILL",
        "nsenter",
        `--net=${place}`,
        "--",
        "ip",
        "monitor",
        "link",
        "address",
        "route",
      ];
      child = spawn("setpriv", words, { stdio: ["ignore", "pipe", "ignore"] });
      child.stdout?.on("data", soon);
      child.once("error", () => resolve());
      child.once("close", () => resolve());
      if (isStopped) child.kill("SIGKILL");
    });
  const running = run().catch(onFailure);
  return {
    stop: async () => {
      isStopped = true;
      clearTimeout(timer);
      child?.kill("SIGKILL");
      // The pause before a restart is not worth waiting for.
      await Promise.race([running, new Promise((resolve) => setTimeout(resolve, networkLimits.watchSettleMs))]);
    },
  };
}
