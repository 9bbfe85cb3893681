/** Options of `run`, `create` and `restore` that are about the network. */
import { resolve } from "node:path";
import { BelljarError } from "../base/index.ts";
import {
  type EndpointModel,
  type NetworkConfig,
  networkModes,
  type PolicyDefault,
  parsePort,
} from "../network/index.ts";
import { parseBytes } from "./quantities.ts";

export interface NetworkOptions {
  readonly network?: string;
  readonly networkModel?: EndpointModel;
  readonly publish?: readonly string[];
  readonly allow?: readonly string[];
  readonly deny?: readonly string[];
  readonly networkDefault?: PolicyDefault;
  readonly link?: readonly string[];
  readonly netRateIn?: string;
  readonly netRateOut?: string;
}

/** Undefined when nothing was said. */
export function networkConfig(options: NetworkOptions): NetworkConfig | undefined {
  const { network, networkModel: model, publish = [], allow, deny, networkDefault, link } = options;
  const rates = ratesOf(options);
  const said = network ?? model ?? allow ?? deny ?? networkDefault ?? rates ?? link;
  if (said === undefined && publish.length === 0) return undefined;
  return {
    ...(network === undefined ? {} : modeOf(network)),
    ...(model === undefined ? {} : { model }),
    ports: publish.flatMap(parsePort),
    policy: { allow, deny, default: networkDefault },
    ...(rates === undefined ? {} : { rates }),
    ...(link === undefined ? {} : { links: link }),
  };
}

function ratesOf({ netRateIn, netRateOut }: NetworkOptions): NetworkConfig["rates"] {
  if (netRateIn === undefined && netRateOut === undefined) return undefined;
  return {
    inBytesPerSecond: netRateIn === undefined ? undefined : parseBytes(netRateIn, "--net-rate-in"),
    outBytesPerSecond: netRateOut === undefined ? undefined : parseBytes(netRateOut, "--net-rate-out"),
  };
}

/** `netns:PATH`, where a name without a slash is one that `ip netns` lists. */
function modeOf(word: string): Pick<NetworkConfig, "mode" | "path"> {
  const [, place] = /^netns:(.+)$/.exec(word) ?? [];
  if (place !== undefined) {
    return { mode: "netns", path: place.includes("/") ? resolve(place) : `/run/netns/${place}` };
  }
  const found = networkModes.find((mode) => mode === word && mode !== "netns");
  if (found !== undefined) return { mode: found };
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word.slice(0, 80))} is no kind of network`, {
    remedy: "Use one of none, user, bridge, netns:PATH.",
  });
}
