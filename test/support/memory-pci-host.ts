/**
 * A host's PCI bus in a directory: files as sysfs has them, and what the kernel does when they are written to. Reading is the
 * system's own; only changes and the question who has what open are answered here.
 */
import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type PciHost, systemPciHost } from "../../src/devices/index.ts";
import { systemError } from "../../src/store/disk.ts";

export interface MemoryPciFunction {
  readonly address: string;
  readonly group?: number;
  readonly vendor?: string;
  readonly device?: string;
  readonly class?: string;
  /** The driver that takes it by itself; none unless told. */
  readonly driver?: string;
}

const NVME_CLASS = "0x010802";

export class MemoryPciHost {
  readonly host: PciHost;
  /** Writes in their order: `unbind 0000:01:00.0 nvme`, `bind ...`, `override ...`. */
  readonly changes: string[] = [];
  /** Nodes, relative to /dev, that somebody has alone. */
  readonly busy = new Set<string>();
  /** Runs before each change; may throw as the kernel would. */
  onChange: ((change: string) => void | Promise<void>) | undefined;
  readonly #drivers = new Map<string, string>();
  readonly #own = new Map<string, string | undefined>();
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
    this.host = {
      ...systemPciHost(join(dir, "sys"), join(dir, "dev")),
      write: (path, text) => this.#write(path, text),
      isBusy: async (path) => this.busy.has(path.slice(join(dir, "dev").length + 1)),
    };
  }

  /** Without any function there is no IOMMU either. */
  static async make(dir: string, functions: readonly MemoryPciFunction[]): Promise<MemoryPciHost> {
    const made = new MemoryPciHost(dir);
    await mkdir(join(dir, "dev/vfio"), { recursive: true });
    for (const name of ["bus/pci/devices", "bus/pci/drivers/vfio-pci", "kernel/iommu_groups"]) {
      await mkdir(join(dir, "sys", name), { recursive: true });
    }
    for (const each of functions) await made.#add(each);
    return made;
  }

  driverOf(address: string): string | undefined {
    return this.#drivers.get(address);
  }

  async override(address: string): Promise<string> {
    return (await readFile(this.#device(address, "driver_override"), "utf8")).trim();
  }

  /** Something the function has, such as an interface: a file below its directory. */
  async put(address: string, path: string, text: string): Promise<void> {
    const file = this.#device(address, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  }

  /** It is taken out of the host. */
  async remove(address: string): Promise<void> {
    const group = await this.host.linkName(this.#device(address, "iommu_group"));
    await rm(this.#device(address), { recursive: true });
    if (group !== undefined) await rm(join(this.#dir, "sys/kernel/iommu_groups", group, "devices", address));
    this.#drivers.delete(address);
  }

  /** The driver's module is unloaded. */
  async removeDriver(driver: string): Promise<void> {
    await rm(join(this.#dir, "sys/bus/pci/drivers", driver), { recursive: true });
  }

  async #add(each: MemoryPciFunction): Promise<void> {
    const { address, group, driver } = each;
    await mkdir(this.#device(address), { recursive: true });
    const files = { vendor: each.vendor ?? "0x1b36", device: each.device ?? "0x0010", class: each.class ?? NVME_CLASS };
    for (const [name, text] of Object.entries(files)) await writeFile(this.#device(address, name), `${text}\n`);
    await writeFile(this.#device(address, "driver_override"), "(null)\n");
    if (group !== undefined) {
      const groupDir = join(this.#dir, "sys/kernel/iommu_groups", String(group));
      await mkdir(join(groupDir, "devices"), { recursive: true });
      await symlink(this.#device(address), join(groupDir, "devices", address));
      await symlink(groupDir, this.#device(address, "iommu_group"));
    }
    this.#own.set(address, driver);
    if (driver === undefined) return;
    await mkdir(join(this.#dir, "sys/bus/pci/drivers", driver), { recursive: true });
    await this.#bind(address, driver);
  }

  async #write(path: string, text: string): Promise<void> {
    const verb = basename(path);
    const value = text.trim();
    const driver = basename(dirname(path));
    const change = verb === "driver_override" ? `override ${driver} ${value}` : `${verb} ${value} ${driver}`;
    const said = verb === "drivers_probe" ? `probe ${value}` : change.trimEnd();
    await this.onChange?.(said);
    this.changes.push(said);
    if (verb === "driver_override") {
      if (!(await this.host.exists(path))) throw systemError("ENOENT", "no such file or directory", path);
      await writeFile(path, value === "" ? "(null)\n" : `${value}\n`);
    } else if (verb === "unbind") {
      if (this.#drivers.get(value) !== driver) throw systemError("ENODEV", "no such device", path);
      await this.#unbind(value);
    } else if (verb === "bind") {
      if ((await this.#wanted(value)) !== driver) throw systemError("ENODEV", "no such device", path);
      await this.#bind(value, driver);
    } else {
      const wanted = await this.#wanted(value);
      const isThere =
        wanted !== undefined && (await this.host.exists(join(this.host.sysDir, "bus/pci/drivers", wanted)));
      if (isThere && this.#drivers.get(value) === undefined) await this.#bind(value, wanted);
    }
  }

  async #wanted(address: string): Promise<string | undefined> {
    const override = await this.override(address);
    return override === "(null)" ? this.#own.get(address) : override;
  }

  async #bind(address: string, driver: string): Promise<void> {
    await symlink(join(this.#dir, "sys/bus/pci/drivers", driver), this.#device(address, "driver"));
    this.#drivers.set(address, driver);
    const group = await this.host.linkName(this.#device(address, "iommu_group"));
    if (driver === "vfio-pci" && group !== undefined) await writeFile(join(this.#dir, "dev/vfio", group), "");
  }

  async #unbind(address: string): Promise<void> {
    const group = await this.host.linkName(this.#device(address, "iommu_group"));
    this.#drivers.delete(address);
    await rm(this.#device(address, "driver"));
    if (group === undefined) return;
    const members = await this.host.list(join(this.#dir, "sys/kernel/iommu_groups", group, "devices"));
    const isLast = !members.some((member) => this.#drivers.get(member) === "vfio-pci");
    if (isLast) await rm(join(this.#dir, "dev/vfio", group), { force: true });
  }

  #device(address: string, ...path: string[]): string {
    return join(this.#dir, "sys/bus/pci/devices", address, ...path);
  }
}
