/** Sandboxes that a new one is linked to, by their names. */
import { BelljarError } from "../base/index.ts";
import type { SettledSandbox } from "../sandbox/index.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";

/** @throws BelljarError what `find` throws, `INVALID_ARGUMENT` for one that is on no bridge */
export async function resolveLinks(
  settled: SettledSandbox,
  find: (nameOrId: string) => Promise<ManagedSandbox>,
): Promise<SettledSandbox> {
  const { network } = settled.settings;
  if (network?.links === undefined) return settled;
  const links = await Promise.all(
    network.links.map(async ({ sandbox, alias }) => {
      const { state } = await find(sandbox);
      if (state.settings.network?.mode === "bridge") return { sandbox: state.id, alias };
      throw new BelljarError("INVALID_ARGUMENT", `sandbox ${state.name} is on no bridge, and cannot be linked to`, {
        remedy: "Start it with `--network bridge`.",
      });
    }),
  );
  return { ...settled, settings: { ...settled.settings, network: { ...network, links } } };
}
