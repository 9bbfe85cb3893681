/** Which QEMU is installed, and whether Belljar can use it. */
import { access, constants, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { BelljarError, runTool } from "../../base/index.ts";
import type { HypervisorInfo } from "../interface.ts";
import type { QemuVersion } from "./qmp.ts";
import { missing } from "./vmm-process.ts";

const OLDEST: QemuVersion = { major: 7, minor: 2, micro: 0 };

/** Answers of `--version`, by path and time of change: a package upgrade under a running daemon is noticed. */
const known = new Map<string, HypervisorInfo>();

/** @throws BelljarError `VMM_MISSING`, `VMM_TOO_OLD` */
export async function qemuInfo(binary: string, signal?: AbortSignal): Promise<HypervisorInfo> {
  const path = await findProgram(binary);
  if (path === undefined) throw missing(binary);
  const { mtimeMs, size } = await stat(path);
  const key = `${path} ${mtimeMs} ${size}`;
  const found = known.get(key);
  if (found !== undefined) return found;
  const { stdout } = await runTool(path, ["--version"], { signal });
  const text = stdout.toString("utf8");
  const match = /^QEMU emulator version (\d+)\.(\d+)(?:\.(\d+))?/.exec(text);
  if (match === null) {
    throw new BelljarError("VMM_MISSING", `${path} is not QEMU: it does not say its version`, { facts: { path } });
  }
  const version = { major: Number(match[1]), minor: Number(match[2]), micro: Number(match[3] ?? 0) };
  checkVersion(version);
  const info: HypervisorInfo = { name: "QEMU", version: versionText(version), path };
  known.set(key, info);
  return info;
}

/** @throws BelljarError `VMM_TOO_OLD` */
export function checkVersion(version: QemuVersion): void {
  const { major, minor } = version;
  if (major > OLDEST.major || (major === OLDEST.major && minor >= OLDEST.minor)) return;
  const [found, oldest] = [versionText(version), `${OLDEST.major}.${OLDEST.minor}`];
  throw new BelljarError("VMM_TOO_OLD", `QEMU is version ${found}, Belljar needs ${oldest} or newer`, {
    facts: { version: found, oldestVersion: oldest },
  });
}

export function versionText(version: QemuVersion): string {
  return `${version.major}.${version.minor}.${version.micro}`;
}

async function findProgram(name: string): Promise<string | undefined> {
  const folders = (process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin").split(delimiter);
  const candidates = name.includes("/") ? [name] : folders.map((folder) => join(folder, name));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not here; the next folder may have it.
    }
  }
  return undefined;
}
