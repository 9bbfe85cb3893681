/** `belljar device`: what is plugged into a sandbox. */
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import type { DeviceInfo } from "../../sdk/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { type DeviceOptions, deviceRequest } from "../device-options.ts";
import { forEachName } from "../for-each.ts";
import { SignalRelay } from "../signals.ts";
import { splitTarget } from "../target.ts";

interface AddOptions extends CommonOptions, DeviceOptions {}

interface ListOptions extends CommonOptions {
  readonly all?: boolean;
}

const KINDS = ["block", "generic", "vfio", "vhost-user-blk", "vhost-user-fs", "vhost-user-net", "vhost-user-scsi"];

export function addDeviceCommand(program: Command, holder: ContextHolder): void {
  const device = program.command("device").summary("plug devices into sandboxes, list and unplug them");
  addAdd(device, holder);
  addRemove(device, holder);
  addList(device, holder);
}

function addAdd(device: Command, holder: ContextHolder): void {
  withCommonOptions(
    device
      .command("add")
      .summary("plug a device into a sandbox, and print the guest's node of it")
      .argument("<sandbox>")
      .argument("[path]", "disk image, block device, or directory (vhost-user-fs)")
      .addOption(new Option("--kind <kind>", "kind of device").choices(KINDS).default("block"))
      .option("--read-only", "the guest cannot write to it")
      .addOption(new Option("--format <format>", "format of the disk (found out)").choices(["raw", "qcow2"]))
      .addOption(new Option("--driver <driver>", "of a block device").choices(["virtio-scsi", "virtio-blk"]))
      .option("--direct", "past the host's page cache")
      .option("--no-flush", "do not flush what the guest flushes: torn when the host loses power")
      .option("--read-bps <size>", "bytes read per second at most")
      .option("--write-bps <size>", "bytes written per second at most")
      .option("--read-iops <n>", "reads per second at most")
      .option("--write-iops <n>", "writes per second at most")
      .option("--socket <path>", "of the program behind a vhost-user device")
      .option("--tag <tag>", "by which the guest mounts a shared directory")
      .option("--vfio <device>", "PCI device of the host: its address, or its group's file")
      .option("--switch-port", "a PCI device sits behind the VM's switch, not on a root port")
      .option("--mac <address>", "of a network device (a random one)"),
  ).action(
    async (sandboxName: string, path: string | undefined, options: AddOptions & { readonly flush?: boolean }) => {
      const context = createContext(options, holder);
      using relay = new SignalRelay();
      await using runtime = await context.connect(relay.signal);
      const sandbox = await runtime.sandboxes.get(splitTarget(sandboxName).sandboxName);
      // Commander takes `--no-flush` for the opposite of a flag of its own.
      const request = deviceRequest(path, { ...options, noFlush: options.flush === false }, process.cwd());
      const info = await sandbox.devices.add(request, { signal: relay.signal });
      if (options.json === true) context.output.object(info);
      else context.output.line([info.id, ...info.nodes].join(" "));
    },
  );
}

function addRemove(device: Command, holder: ContextHolder): void {
  withCommonOptions(
    device
      .command("rm")
      .summary("unplug devices")
      .argument("<sandbox>")
      .argument("<device...>", "id of the device, or its path on the host"),
  ).action(async (sandboxName: string, devices: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    const sandbox = await runtime.sandboxes.get(splitTarget(sandboxName).sandboxName);
    const known = (await sandbox.devices.list()).flatMap(({ id, source }) => [id, source]);
    await forEachName(devices, context.output, async (each) => {
      // Paths are as `add` takes them.
      const device = known.includes(each) ? each : resolve(each);
      await sandbox.devices.remove(device, { signal: relay.signal });
      if (options.json === true) context.output.object({ removed: each });
      else context.output.line(each);
    });
  });
}

function addList(device: Command, holder: ContextHolder): void {
  withCommonOptions(
    device
      .command("ls")
      .summary("list devices of a sandbox")
      .argument("<sandbox>")
      .option("-a, --all", "containers' own disks too"),
  ).action(async (sandboxName: string, options: ListOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    const sandbox = await runtime.sandboxes.get(splitTarget(sandboxName).sandboxName);
    const all = await sandbox.devices.list();
    const shown = all.filter(({ isContainers }) => options.all === true || !isContainers);
    context.output.table(["ID", "KIND", "STATE", "NODES", "HOLDERS", "SOURCE"], shown.map(row), shown);
  });
}

function row({ id, kind, state, nodes, attachments, source, readOnly }: DeviceInfo): readonly string[] {
  return [
    id,
    kind,
    state,
    nodes.join(" "),
    [...new Set(attachments)].join(" "),
    readOnly ? `${source} (read-only)` : source,
  ];
}
