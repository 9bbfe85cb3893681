/** Options of `run` and `create` that are about the network. */
import { BelljarError } from "../base/index.ts";
import { type NetworkConfig, networkModes, type PolicyDefault, parsePort } from "../network/index.ts";

export interface NetworkOptions {
  readonly network?: string;
  readonly publish?: readonly string[];
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  readonly networkDefault?: PolicyDefault;
}

/** Undefined when nothing was said. */
export function networkConfig(options: NetworkOptions): NetworkConfig | undefined {
  const { network, publish = [], allow, deny, networkDefault } = options;
  if (network === undefined && publish.length === 0 && (allow ?? deny ?? networkDefault) === undefined)
    return undefined;
  return {
    mode: network === undefined ? undefined : modeOf(network),
    ports: publish.flatMap(parsePort),
    policy: { allow, deny, default: networkDefault },
  };
}

function modeOf(word: string): NonNullable<NetworkConfig["mode"]> {
  const found = networkModes.find((mode) => mode === word);
  if (found !== undefined) return found;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word.slice(0, 80))} is no kind of network`, {
    remedy: `Use one of ${networkModes.join(", ")}.`,
  });
}
