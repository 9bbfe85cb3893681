/**
 * Which GPU inside the guest a handed-on device is. A workload that was given /dev/vfio/12 by the host's device plug-in asks the
 * guest for a GPU by number; the annotations say which number. A pure function.
 */

export interface PluggedFunction {
  readonly group: number;
  readonly vendor: string;
  readonly class: string;
  readonly portKind: "root-port" | "switch-port";
  readonly port: number;
  /** On its port. */
  readonly function: number;
}

const NVIDIA = "0x10de";
/** VGA-compatible and 3D controllers. */
const DISPLAY_CLASS = /^0x030/;

/**
 * The annotations of a container that asked for these groups. The guest numbers its GPUs in the order of its buses: those on root
 * ports first, then those behind a switch.
 */
export function gpuAnnotations(
  plugged: readonly PluggedFunction[],
  groups: readonly number[],
): Readonly<Record<string, string>> {
  const gpus = plugged.filter((each) => each.vendor === NVIDIA && DISPLAY_CLASS.test(each.class)).sort(byBus);
  const annotations: Record<string, string> = {};
  for (const [index, gpu] of gpus.entries()) {
    if (groups.includes(gpu.group)) annotations[`cdi.k8s.io/vfio${gpu.group}`] = `nvidia.com/gpu=${index}`;
  }
  return annotations;
}

function byBus(a: PluggedFunction, b: PluggedFunction): number {
  if (a.portKind !== b.portKind) return a.portKind === "root-port" ? -1 : 1;
  return a.port - b.port || a.function - b.function;
}
