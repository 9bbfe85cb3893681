/**
 * Set-up of a clone: Debian packages, then the guest image with the built-in images. Each step says one line, does nothing
 * when there is nothing to do, and can be interrupted and called again. npm packages came before this (tools/dev).
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { repository, runCommand } from "./command.ts";
import { type NeededPackage, productPackages, testPackages } from "./packages.ts";
import { type HostFacts, planSetup } from "./setup-plan.ts";

const APT_LISTS = "/var/lib/apt/lists";
const APT_ENVIRONMENT = { DEBIAN_FRONTEND: "noninteractive" };

/** False when something is missing that this user or system cannot get; what, has been said. */
export async function setUp(purpose: "run" | "test"): Promise<boolean> {
  const needed = purpose === "run" ? productPackages : [...productPackages, ...testPackages];
  return (await setUpPackages(needed)) && (await setUpGuestImage());
}

async function setUpPackages(needed: readonly NeededPackage[]): Promise<boolean> {
  const plan = planSetup(await readFacts(needed), needed);
  switch (plan.kind) {
    case "ready":
      say(`Debian packages: all ${needed.length} are here`);
      return true;
    case "refuse":
      process.stderr.write(`belljar: ${plan.message}\n`);
      return false;
    case "update":
      say("Debian packages: fetching the lists");
      return await apt(["update"]);
    case "install": {
      if (plan.updateFirst) {
        say("Debian packages: fetching the lists");
        if (!(await apt(["update"]))) return false;
      }
      say(`Debian packages: installing ${plan.packages.join(", ")}`);
      const install = ["install", "-y", "--no-install-recommends", ...plan.packages];
      if (await apt(install, { quiet: !plan.updateFirst })) return true;
      if (plan.updateFirst) return false;
      // Old lists name versions that the archive no longer has.
      say("Debian packages: fetching newer lists, then trying again");
      return (await apt(["update"])) && (await apt(install));
    }
  }
}

async function apt(args: readonly string[], options: { readonly quiet?: boolean } = {}): Promise<boolean> {
  const { status, output } = await runCommand("apt-get", ["-q", "-q", ...args], {
    env: APT_ENVIRONMENT,
    capture: true,
  });
  if (status === 0) return true;
  if (options.quiet !== true) {
    process.stderr.write(
      `${output}belljar: apt-get ${args[0]} ended with status ${status}; what it said stands above\n`,
    );
  }
  return false;
}

async function setUpGuestImage(): Promise<boolean> {
  const { status, output } = await runCommand(join(repository, "bin/belljar"), ["guest", "build"], {
    capture: "stdout",
  });
  if (status === 0) say(`guest image: ${output.trim().replace("sha256:", "").slice(0, 12)} is up to date`);
  else process.stderr.write("belljar: the guest image could not be built\n");
  return status === 0;
}

async function readFacts(needed: readonly NeededPackage[]): Promise<HostFacts> {
  const release = parseOsRelease(await readFile("/etc/os-release", "utf8").catch(() => ""));
  const lists = await readdir(APT_LISTS).catch((): string[] => []);
  const hasApt = (await runCommand("apt-get", ["--version"], { capture: true })).status === 0;
  return {
    systemIds: [release["ID"] ?? "", ...(release["ID_LIKE"] ?? "").split(" ")],
    systemName: release["PRETTY_NAME"] ?? "of an unknown kind",
    hasApt,
    isRoot: process.getuid?.() === 0,
    installed: hasApt ? await installedPackages(needed) : new Set(),
    hasPackageLists: lists.some((name) => name.includes("_Packages")),
  };
}

async function installedPackages(needed: readonly NeededPackage[]): Promise<Set<string>> {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own syntax
  const format = "--showformat=${db:Status-Status} ${Package}\\n";
  const names = needed.map(({ name }) => name);
  // Its status is 1 when it does not know one of them, and that is an answer too.
  const { output } = await runCommand("dpkg-query", ["--show", format, ...names], { capture: true });
  const lines = output.split("\n").map((line) => line.split(" "));
  return new Set(lines.flatMap(([status, name]) => (status === "installed" && name !== undefined ? [name] : [])));
}

export function parseOsRelease(text: string): Readonly<Record<string, string>> {
  const pairs = [...text.matchAll(/^([A-Z_]+)=(["']?)(.*)\2$/gm)];
  return Object.fromEntries(pairs.map((match) => [match[1] ?? "", match[3] ?? ""]));
}

function say(line: string): void {
  process.stdout.write(`belljar: ${line}\n`);
}
