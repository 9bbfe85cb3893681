/** What of a mount can be checked without looking at the host: its type, its options, where it goes. Pure. */
import { posix } from "node:path";
import { BelljarError, mountLimits } from "../base/index.ts";
import type { MountConfig } from "./mount-config.ts";

const OPTION = /^[a-zA-Z0-9_.:=/@%+-]{1,256}$/;
/** Options that the runtime in the guest would take for something else than an option of the file system. */
const RESERVED =
  /^(?:bind|rbind|remount|move|(?:r?(?:shared|slave|private|unbindable))|loop.*|offset=.*|sizelimit=.*)$/;
const PRIVATE = new Set(["", "private", "rprivate"]);
const SHARING = new Set(["shared", "rshared", "slave", "rslave"]);

/** Which fields belong to which type, beside type, target, source and readOnly. */
const FIELDS: Readonly<Record<MountConfig["type"], readonly (keyof MountConfig)[]>> = {
  bind: ["how", "createSource", "propagation", "options", "sizeBytes"],
  volume: ["propagation", "noCopy", "sizeBytes"],
  tmpfs: ["sizeBytes", "mode", "options"],
  disk: ["fileSystem", "format", "options", "propagation"],
};
const EVERYWHERE: ReadonlySet<string> = new Set(["type", "target", "source", "readOnly"]);

/** With normal targets. @throws BelljarError `INVALID_ARGUMENT`, `MOUNT_UNSUPPORTED` */
export function checkMounts(mounts: readonly MountConfig[], taken: readonly string[] = []): readonly MountConfig[] {
  if (mounts.length > mountLimits.mountsMax) {
    throw new BelljarError("INVALID_ARGUMENT", `a container has at most ${mountLimits.mountsMax} mounts`, {
      facts: { mounts: mounts.length },
    });
  }
  const targets = new Set(taken);
  return mounts.map((mount) => {
    const target = checkTarget(mount.target);
    if (targets.has(target)) throw invalid(`two mounts have the target ${target}`);
    targets.add(target);
    checkOne({ ...mount, target });
    return { ...mount, target };
  });
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkTarget(text: string): string {
  if (text.includes("\0") || !text.startsWith("/")) {
    throw invalid(`the target of a mount is an absolute path in the container, not ${JSON.stringify(text)}`);
  }
  const target = posix.normalize(text).replace(/(?<=.)\/+$/, "");
  if (target === "/") throw invalid("nothing can be mounted at / of a container");
  if (target === "/proc" || target.startsWith("/proc/")) throw invalid(`nothing can be mounted at ${target}`);
  if (Buffer.byteLength(target) > 4_095) throw invalid("the target of a mount is too long");
  return target;
}

function checkOne(mount: MountConfig): void {
  const { type, target, source = "" } = mount;
  const allowed: readonly string[] = FIELDS[type];
  for (const [field, value] of Object.entries(mount)) {
    if (value === undefined || EVERYWHERE.has(field) || allowed.includes(field)) continue;
    throw invalid(`the mount at ${target} has ${field}, which a ${type} does not have`);
  }
  if (type === "tmpfs" && source !== "") throw invalid(`the tmpfs at ${target} has a source`);
  if ((type === "bind" || type === "disk") && (!source.startsWith("/") || source.includes("\0"))) {
    throw invalid(`the source of the ${type} at ${target} is not an absolute path: ${JSON.stringify(source)}`);
  }
  if (mount.sizeBytes !== undefined && type === "bind" && mount.how !== "disk") {
    throw invalid(`the mount at ${target} has a size, and only a disk has one`);
  }
  if (mount.how === "copy" && mount.readOnly === false) {
    throw invalid(`the mount at ${target} is a copy, and copies are read-only`);
  }
  checkPropagation(mount);
  const options = mount.options ?? [];
  const wrong = options.find((option) => !OPTION.test(option) || RESERVED.test(option));
  if (wrong !== undefined) throw invalid(`the mount at ${target} cannot have the option ${JSON.stringify(wrong)}`);
  if (options.length > mountLimits.optionsMax) throw invalid(`the mount at ${target} has too many options`);
}

function checkPropagation({ propagation = "", target }: MountConfig): void {
  if (PRIVATE.has(propagation)) return;
  if (!SHARING.has(propagation)) throw invalid(`invalid propagation ${JSON.stringify(propagation)} of ${target}`);
  throw new BelljarError(
    "MOUNT_UNSUPPORTED",
    `the mount at ${target} cannot be ${propagation}: mounts of the host do not reach into a VM, nor its mounts the host`,
    { remedy: "Leave the propagation out, or say rprivate." },
  );
}

function invalid(message: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", message);
}
