/** What `volume.json` holds: the volume's data is the disk image beside it. */
import { type Field, mountLimits, sandboxLimits } from "../base/index.ts";
import type { StateSchema } from "../store/index.ts";

export interface VolumeState {
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** Of its disk; what it takes on the host is less. */
  readonly sizeBytes: number;
  /** Somebody chose its name: it is nothing that a clean-up takes without being told to. */
  readonly named: boolean;
  readonly labels: Readonly<Record<string, string>>;
}

export const volumeSchema: StateSchema<VolumeState> = { kind: "volume", migrations: [], decode: decodeVolumeState };

function decodeVolumeState(field: Field): VolumeState {
  const label = (value: Field): string => value.string({ maxLength: sandboxLimits.annotationMaxLength });
  return {
    name: field.field("name").string({ minLength: 1, maxLength: 63 }),
    createdAtMs: field.field("createdAtMs").integer({ min: 0 }),
    sizeBytes: field.field("sizeBytes").integer({ min: 1 }),
    named: field.field("named").boolean(),
    labels: field.field("labels").map(label, { maxItems: mountLimits.labelsMax }),
  };
}
