/** Debian packages that the product, and those that only its tests, call; each with its reason. */

export interface NeededPackage {
  readonly name: string;
  /** A program of it, for those who have no dpkg to ask. */
  readonly program: string;
  readonly reason: string;
}

/** To build a guest image and to run containers. */
export const productPackages: readonly NeededPackage[] = [
  { name: "qemu-system-x86", program: "qemu-system-x86_64", reason: "runs the VMs" },
  { name: "erofs-utils", program: "mkfs.erofs", reason: "makes layers and the guest's root" },
  { name: "lz4", program: "lz4", reason: "unpacks the guest's kernel" },
  { name: "e2fsprogs", program: "mke2fs", reason: "makes the containers' writable disks" },
  { name: "skopeo", program: "skopeo", reason: "fetches images from registries" },
  { name: "ca-certificates", program: "update-ca-certificates", reason: "knows the registries' certificates" },
  { name: "xz-utils", program: "xz", reason: "unpacks layers and packages" },
  { name: "zstd", program: "zstd", reason: "unpacks layers and packages" },
  { name: "util-linux", program: "fallocate", reason: "punches holes into disk images" },
  { name: "iproute2", program: "ip", reason: "makes the sandboxes' network namespaces" },
  { name: "nftables", program: "nft", reason: "keeps sandboxes from what they may not reach" },
  { name: "slirp4netns", program: "slirp4netns", reason: "carries what a sandbox sends out, as an ordinary program" },
];

/** To test: tools of other authors that make images and serve them, and what the emulated KVM machine needs. */
export const testPackages: readonly NeededPackage[] = [
  { name: "mmdebstrap", program: "mmdebstrap", reason: "makes a root file system from Debian packages" },
  { name: "umoci", program: "umoci", reason: "makes OCI images with several layers" },
  { name: "docker-registry", program: "docker-registry", reason: "a real registry on loopback" },
  { name: "libarchive-tools", program: "bsdtar", reason: "writes archives as other systems do" },
  { name: "busybox-static", program: "busybox", reason: "first program of the emulated machine" },
  { name: "cpio", program: "cpio", reason: "packs the emulated machine's initramfs" },
  { name: "kmod", program: "depmod", reason: "finds which kernel modules need which" },
  { name: "qemu-system-common", program: "virtiofsd", reason: "shows this host's files to the emulated machine" },
  { name: "mount", program: "losetup", reason: "makes what the tests of the harness leave behind" },
  { name: "bzip2", program: "bzip2", reason: "compresses archives that are imported" },
  { name: "zsh", program: "zsh", reason: "completes commands, and sits at the terminals of the other shells" },
  { name: "fish", program: "fish", reason: "completes commands" },
  { name: "curl", program: "curl", reason: "speaks the API's JSON as people's scripts do" },
];
