/** Checkpoints and what is asked of them, to the wire and back. The runtime checks the values. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError, parseJson } from "../../base/index.ts";
import type { api } from "../../protocol/index.ts";
import type {
  CheckpointInfo,
  CheckpointOptions,
  ForkOptions,
  RestoredContainer,
  RestoreOptions,
  RestoreReport,
  SpecValidation,
} from "../../runtime/index.ts";
import { missing } from "./config.ts";
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
    ...(wire.trail === true ? { trail: true } : {}),
    ...(wire.compression === "zstd" ? { compression: wire.compression } : {}),
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
  { name, stop, asTemplate, compress }: CheckpointOptions,
): MessageInitShape<typeof api.CreateCheckpointRequestSchema> {
  return given({ sandbox, name, stop, asTemplate, compress });
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
  containers,
  specValidation,
}: RestoreOptions): MessageInitShape<typeof api.RestoreSpecSchema> {
  return given({
    name,
    hostname,
    ports: ports?.map((port) => given({ ...port })),
    network: network === undefined ? undefined : toNetworkSpec(network),
    keepExec,
    containers: containers?.map(toRestoredContainer),
    specValidation,
  });
}

export function toRestoredContainer({
  name,
  id,
  spec,
}: RestoredContainer): MessageInitShape<typeof api.RestoredContainerSchema> {
  return given({ name, id, specJson: spec === undefined ? undefined : JSON.stringify(spec) });
}

export function fromRestoredContainer(wire: api.RestoredContainer | undefined): RestoredContainer {
  if (wire === undefined) throw missing("container");
  const { name, id, specJson } = wire;
  const spec =
    specJson === undefined ? undefined : parseJson(specJson, `the specification of ${name}`, "INVALID_ARGUMENT");
  return { name, id, ...(spec === undefined ? {} : { spec: spec.raw }) };
}

/** Without one everything is as the runtime has it. */
export function fromRestoreSpec(wire: api.RestoreSpec | undefined): RestoreOptions {
  const { name, hostname, ports = [], network, keepExec, containers = [], specValidation } = wire ?? {};
  return {
    name,
    hostname,
    ...(ports.length === 0 ? {} : { ports: ports.map(fromPortSpec) }),
    ...(network === undefined ? {} : { network: fromNetworkSpec(network) }),
    keepExec,
    ...(containers.length === 0 ? {} : { containers: containers.map(fromRestoredContainer) }),
    ...(specValidation === undefined ? {} : { specValidation: validationOf(specValidation) }),
  };
}

function validationOf(word: string): SpecValidation {
  if (word === "enforce" || word === "warn" || word === "ignore") return word;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word)} is not enforce, warn or ignore`);
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
