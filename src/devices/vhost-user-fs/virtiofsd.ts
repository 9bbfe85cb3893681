/**
 * The program behind a directory that is shared with the guest while it runs. It confines itself to the directory (a mount
 * namespace of its own, pivoted into it). It ends when the VM closes its socket; one that no VM ever connected to is ended by us.
 */
import type { ProcessIdentity } from "../../base/index.ts";
import { type BackEndCommand, endBackEnd, logPathOf, startBackEnd, VIRTIOFSD } from "../back-end-process.ts";

export interface VirtiofsdConfig {
  /** In the sandbox's run directory. */
  readonly socketPath: string;
  /** An absolute path; a directory. */
  readonly directory: string;
  /** Only this file, under the name `file`: the directory is an empty one of ours, and stays empty on the host. */
  readonly file?: string | undefined;
  /** Not even a guest that has taken over its own kernel can write. */
  readonly readOnly: boolean;
  /** How long the guest may believe what it has read; `auto`, a second, unless told. */
  readonly cache?: "none" | "auto" | "always" | undefined;
}

/** @throws BelljarError `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED`, `DEADLINE_EXCEEDED`, `CANCELLED`; nothing is left then */
export async function startVirtiofsd(config: VirtiofsdConfig, signal?: AbortSignal): Promise<ProcessIdentity> {
  return await startBackEnd(virtiofsdCommand(config), signal);
}

/** Ends one that this process or an earlier one started; success when it is gone. */
export async function endVirtiofsd(identity: ProcessIdentity, socketPath: string): Promise<void> {
  await endBackEnd(identity, { what: "virtiofsd", socketPath, logPath: logPathOf(socketPath) });
}

export function virtiofsdCommand(config: VirtiofsdConfig): BackEndCommand {
  const { socketPath, directory } = config;
  const options = ["sandbox=namespace", `cache=${config.cache ?? "auto"}`, "xattr", `source=${optionValue(directory)}`];
  const args = ["-f", `--socket-path=${socketPath}`, ...options.flatMap((option) => ["-o", option])];
  const common = { what: "virtiofsd", socketPath, logPath: logPathOf(socketPath) };
  if (config.file !== undefined) return fileCommand(config, config.file, { ...common, args });
  if (!config.readOnly) return { ...common, program: VIRTIOFSD, args };
  // A read-only mount in a namespace that ends with the process: nothing of it is seen on the host. Not recursive, since only
  // the mount itself becomes read-only: what is mounted below the directory is not in it.
  const script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"';
  return {
    ...common,
    program: "unshare",
    args: ["--mount", "--propagation", "private", "sh", "-c", script, "sh", directory, VIRTIOFSD, ...args],
  };
}

/** Mounts in a namespace that ends with the process, as above; nothing else of the file's directory is in it. */
function fileCommand(
  { directory, readOnly }: VirtiofsdConfig,
  file: string,
  command: Omit<BackEndCommand, "program">,
): BackEndCommand {
  const readOnlyToo = readOnly ? 'mount -o remount,bind,ro "$1/file" && ' : "";
  const script =
    'mount -t tmpfs -o mode=755,size=4k,nr_inodes=4 belljar "$1" && touch "$1/file" && mount --bind "$2" "$1/file" && ' +
    `${readOnlyToo}mount -o remount,ro "$1" && shift 2 && exec "$@"`;
  return {
    ...command,
    program: "unshare",
    args: [
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-c",
      script,
      "sh",
      directory,
      file,
      VIRTIOFSD,
      ...command.args,
    ],
  };
}

/** In its option syntax a comma ends the value, and a backslash takes its meaning away. */
function optionValue(text: string): string {
  return text.replaceAll(/[\\,]/g, (character) => `\\${character}`);
}
