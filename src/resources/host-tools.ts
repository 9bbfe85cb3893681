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
  /** Where it stands, if not in a folder of programs. */
  readonly path?: string;
}

export const hostTools: readonly HostTool[] = [
  { program: "mkfs.erofs", debianPackage: "erofs-utils", purpose: "makes image layers", required: true },
  { program: "mke2fs", debianPackage: "e2fsprogs", purpose: "makes containers' writable disks", required: true },
  { program: "lz4", debianPackage: "lz4", purpose: "unpacks the guest's kernel", required: false },
  { program: "fallocate", debianPackage: "util-linux", purpose: "keeps sparse files sparse", required: true },
  { program: "tar", debianPackage: "tar", purpose: "imports directories as images", required: false },
  { program: "skopeo", debianPackage: "skopeo", purpose: "pulls images from registries", required: false },
  {
    program: "virtiofsd",
    debianPackage: "qemu-system-common",
    purpose: "serves live mounts",
    required: false,
    path: "/usr/lib/qemu/virtiofsd",
  },
  {
    program: "qemu-storage-daemon",
    debianPackage: "qemu-system-common",
    purpose: "serves vhost-user disks",
    required: false,
  },
  { program: "ip", debianPackage: "iproute2", purpose: "makes network namespaces", required: false },
  {
    program: "nft",
    debianPackage: "nftables",
    purpose: "keeps sandboxes from what they may not reach",
    required: false,
  },
  { program: "slirp4netns", debianPackage: "slirp4netns", purpose: "carries what sandboxes send out", required: false },
  { program: "apt-get", debianPackage: "apt", purpose: "gets the guest image's packages", required: false },
  { program: "dpkg-deb", debianPackage: "dpkg", purpose: "unpacks the guest image's packages", required: false },
];

export async function inspectTool(tool: HostTool, searchPath: string): Promise<Capability> {
  const { program, debianPackage, purpose, required } = tool;
  return await look(program, required, async () => {
    const path = await findProgram(tool, searchPath);
    if (path !== undefined) return { status: "yes", detail: `${path}: ${purpose}` };
    return {
      status: "no",
      detail: `${program} is not installed`,
      cost: `nothing ${purpose} without it`,
      remedy: `Install the Debian package ${debianPackage}.`,
    };
  });
}

async function findProgram({ program, path: only }: HostTool, searchPath: string): Promise<string | undefined> {
  const places = searchPath.split(delimiter).map((folder) => join(folder, program));
  for (const path of only === undefined ? places : [only]) {
    const executable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return path;
  }
  return undefined;
}
