/** Addresses of host names in rules, as they change while a sandbox runs: what was there stays, until there is too much of it. */
import { networkLimits, parseJson } from "../base/index.ts";
import { IPV4 } from "./addresses.ts";
import { TABLE } from "./rules.ts";

/** What `nft -j list sets` says, by name. */
export function readSets(text: string): ReadonlyMap<string, readonly string[]> {
  const sets = parseJson(text, "nft", "NETWORK_FAILED")
    .field("nftables")
    .array((item) =>
      item.field("set").optional((set) => {
        const elements = set.field("elem").optional((list) => list.array((each) => each.raw)) ?? [];
        return [set.field("name").string({ maxLength: 64 }), elements.map(String)] as const;
      }),
    );
  return new Map(sets.flatMap((each) => (each === undefined ? [] : [each])));
}

/** For `nft`; empty when nothing has changed. */
export function renewedSets(
  wanted: readonly { readonly set: string; readonly addresses: readonly string[] }[],
  present: ReadonlyMap<string, readonly string[]>,
): string {
  const lines = wanted.flatMap(({ set, addresses }) => {
    const known = present.get(set) ?? [];
    const fresh = addresses.filter((address) => IPV4.test(address) && !known.includes(address));
    if (fresh.length === 0) return [];
    const isFull = known.length + fresh.length > networkLimits.addressesRememberedMax;
    const elements = (isFull ? addresses : fresh).join(", ");
    return [...(isFull ? [`flush set inet ${TABLE} ${set}`] : []), `add element inet ${TABLE} ${set} { ${elements} }`];
  });
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}
