/** The programs of the host that Belljar calls, with the Debian package of each. QEMU is not here: the hypervisor knows it. */
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { type Capability, look } from "./capability.ts";

export interface HostTool {
  readonly program: string;
  readonly debianPackage: string;
  readonly purpose: string;
  /** Without it no container can be run. */
  readonly required: boolean;
}

export const hostTools: readonly HostTool[] = [
  { program: "mkfs.erofs", debianPackage: "erofs-utils", purpose: "makes image layers", required: true },
  { program: "mke2fs", debianPackage: "e2fsprogs", purpose: "makes containers' writable disks", required: true },
  { program: "lz4", debianPackage: "lz4", purpose: "unpacks the guest's kernel", required: false },
  { program: "fallocate", debianPackage: "util-linux", purpose: "keeps sparse files sparse", required: true },
  { program: "tar", debianPackage: "tar", purpose: "imports directories as images", required: false },
  { program: "skopeo", debianPackage: "skopeo", purpose: "pulls images from registries", required: false },
  { program: "apt-get", debianPackage: "apt", purpose: "gets the guest image's packages", required: false },
  { program: "dpkg-deb", debianPackage: "dpkg", purpose: "unpacks the guest image's packages", required: false },
];

export async function inspectTool(tool: HostTool, searchPath: string): Promise<Capability> {
  const { program, debianPackage, purpose, required } = tool;
  return await look(program, required, async () => {
    const path = await findProgram(program, searchPath);
    if (path !== undefined) return { status: "yes", detail: `${path}: ${purpose}` };
    return {
      status: "no",
      detail: `${program} is not installed`,
      cost: `nothing ${purpose} without it`,
      remedy: `Install the Debian package ${debianPackage}.`,
    };
  });
}

async function findProgram(program: string, searchPath: string): Promise<string | undefined> {
  for (const folder of searchPath.split(delimiter)) {
    const path = join(folder, program);
    const executable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return path;
  }
  return undefined;
}
