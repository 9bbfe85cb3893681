/** Reads a `VmState` back from a state file, field by field. */
import { decodeProcessIdentity, type Field, vmmLimits } from "../base/index.ts";
import type { DiskConfig, VmState } from "./interface.ts";

export function decodeVmState(field: Field): VmState {
  return {
    id: field.field("id").string({ minLength: 1, maxLength: 64 }),
    vmm: decodeProcessIdentity(field.field("vmm")),
    runDir: field.field("runDir").string({ minLength: 1 }),
    acceleration: field.field("acceleration").oneOf(["kvm", "tcg"]),
    memoryMib: field.field("memoryMib").integer({ min: 1 }),
    cpus: field.field("cpus").integer({ min: 1 }),
    disks: field.field("disks").array(decodeDiskConfig, { maxItems: vmmLimits.disksMax }),
  };
}

export function decodeDiskConfig(field: Field): DiskConfig {
  const slot = field.field("slot").optional((value) => value.integer({ min: 0, max: vmmLimits.disksMax - 1 }));
  return {
    serial: field.field("serial").string({ pattern: /^[a-z0-9-]{1,20}$/ }),
    path: field.field("path").string({ minLength: 1 }),
    format: field.field("format").oneOf(["raw", "qcow2"]),
    readOnly: field.field("readOnly").boolean(),
    ...(slot === undefined ? {} : { slot }),
  };
}
