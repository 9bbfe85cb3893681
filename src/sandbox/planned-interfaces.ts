/** The interfaces of a guest that stands still, as it tells them: bounded, and nothing but numbers and addresses. */
import { type Decode, decodeField, type Field, networkLimits } from "../base/index.ts";
import { GUEST_INTERFACE, isRange, MAC_ADDRESS } from "../network/index.ts";
import type { PlannedInterface } from "../protocol/index.ts";

const { interfacesMax, presentAddressesMax } = networkLimits;
const INDEX_MAX = 2 ** 31 - 1;

export const decodePlannedInterfaces: Decode<readonly PlannedInterface[]> = (field) =>
  field.array(decodeInterface, { maxItems: interfacesMax });

/** Undefined when it tells none, or what cannot be: then its agent does what there is to do. */
export function readPlannedInterfaces(said: readonly PlannedInterface[]): readonly PlannedInterface[] | undefined {
  if (said.length === 0) return undefined;
  try {
    const interfaces = said.map(({ index, name, macAddress, mtu, addresses }) => {
      return { index, name, macAddress, mtu, addresses: [...addresses] };
    });
    return decodePlannedInterfaces(decodeField(interfaces, "interfaces", "AGENT_FAILED"));
  } catch {
    return undefined;
  }
}

function decodeInterface(field: Field): PlannedInterface {
  return {
    index: field.field("index").integer({ min: 1, max: INDEX_MAX }),
    name: field.field("name").string({ pattern: GUEST_INTERFACE }),
    macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }),
    mtu: field.field("mtu").integer({ min: 0, max: INDEX_MAX }),
    addresses: field.field("addresses").array(decodeAddress, { maxItems: presentAddressesMax }),
  };
}

function decodeAddress(field: Field): string {
  const text = field.string({ maxLength: 64 });
  if (isRange(text)) return text;
  throw field.expected("an address with its prefix");
}
