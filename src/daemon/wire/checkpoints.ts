/** Checkpoints and what is asked of them, to the wire and back. The runtime checks the values. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { api } from "../../protocol/index.ts";
import type {
  CheckpointInfo,
  CheckpointOptions,
  ForkOptions,
  RestoreOptions,
  RestoreReport,
} from "../../runtime/index.ts";
import { given } from "./given.ts";
import { incomplete } from "./info.ts";
import { fromNetworkSpec, fromPortSpec, toNetworkSpec } from "./network.ts";

export function toCheckpointInfo(info: CheckpointInfo): MessageInitShape<typeof api.CheckpointInfoSchema> {
  return given({ ...info, source: { ...info.source }, containers: info.containers.map((each) => ({ ...each })) });
}

export function fromCheckpointInfo(wire: api.CheckpointInfo | undefined): CheckpointInfo {
  if (wire?.source === undefined) throw incomplete("checkpoint");
  const { id, name, generation } = wire.source;
  return {
    id: wire.id,
    name: wire.name,
    createdAtMs: wire.createdAtMs,
    source: { id, name, generation },
    state: wire.state === "paused" ? "paused" : "running",
    image: wire.image,
    containers: wire.containers.map((each) => ({ id: each.id, name: each.name, image: each.image })),
    memoryMib: wire.memoryMib,
    cpus: wire.cpus,
    acceleration: wire.acceleration === "kvm" ? "kvm" : "tcg",
    hypervisor: wire.hypervisor,
    template: wire.template,
    ...(wire.isTemplate === true ? { isTemplate: true } : {}),
    digest: wire.digest,
    pagesBytes: wire.pagesBytes,
    devicesBytes: wire.devicesBytes,
    disksBytes: wire.disksBytes,
    pauseMs: wire.pauseMs,
    frozenMs: wire.frozenMs,
    problem: wire.problem,
  };
}

export function toCheckpointRequest(
  sandbox: string,
  { name, stop, asTemplate }: CheckpointOptions,
): MessageInitShape<typeof api.CreateCheckpointRequestSchema> {
  return given({ sandbox, name, stop, asTemplate });
}

export function toForkRequest(
  sandbox: string,
  options: ForkOptions | number,
): MessageInitShape<typeof api.ForkSandboxRequestSchema> {
  const { count, name, keepExec } = typeof options === "number" ? { count: options } : options;
  return given({ sandbox, count, name, keepExec });
}

export function toRestoreSpec({
  name,
  hostname,
  ports,
  network,
  keepExec,
}: RestoreOptions): MessageInitShape<typeof api.RestoreSpecSchema> {
  return given({
    name,
    hostname,
    ports: ports?.map((port) => given({ ...port })),
    network: network === undefined ? undefined : toNetworkSpec(network),
    keepExec,
  });
}

/** Without one everything is as the runtime has it. */
export function fromRestoreSpec(wire: api.RestoreSpec | undefined): RestoreOptions {
  const { name, hostname, ports = [], network, keepExec } = wire ?? {};
  return {
    name,
    hostname,
    ...(ports.length === 0 ? {} : { ports: ports.map(fromPortSpec) }),
    ...(network === undefined ? {} : { network: fromNetworkSpec(network) }),
    keepExec,
  };
}

export function toRestoreReport({
  fits,
  findings,
}: RestoreReport): MessageInitShape<typeof api.CheckRestoreResponseSchema> {
  return { fits, findings: findings.map((each) => ({ ...each })) };
}

export function fromRestoreReport(wire: api.CheckRestoreResponse): RestoreReport {
  return { fits: wire.fits, findings: wire.findings.map(({ what, fits, detail }) => ({ what, fits, detail })) };
}
