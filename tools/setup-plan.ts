/** What set-up has to do on a host with these facts: a pure function, so that every kind of host can be tested. */
import type { NeededPackage } from "./packages.ts";

export interface HostFacts {
  /** `ID` and `ID_LIKE` of /etc/os-release. */
  readonly systemIds: readonly string[];
  readonly systemName: string;
  readonly hasApt: boolean;
  readonly isRoot: boolean;
  /** Names of installed packages. */
  readonly installed: ReadonlySet<string>;
  /** apt knows at least one archive's contents; a fresh minimal system does not. */
  readonly hasPackageLists: boolean;
}

export type SetupPlan =
  | { readonly kind: "ready" }
  | { readonly kind: "install"; readonly packages: readonly string[]; readonly updateFirst: boolean }
  | { readonly kind: "update" }
  | { readonly kind: "refuse"; readonly message: string };

export function planSetup(facts: HostFacts, needed: readonly NeededPackage[]): SetupPlan {
  if (!facts.systemIds.includes("debian") || !facts.hasApt) {
    const list = needed.map(({ name, program, reason }) => `  ${name} (${program}): ${reason}`);
    return {
      kind: "refuse",
      message: [
        `set-up works on Debian 12 and later; this system is ${facts.systemName}${facts.hasApt ? "" : ", without apt-get"}.`,
        "Nothing was changed. What is needed, under the names of Debian's packages:",
        ...list,
        "The guest image is made from Debian's packages, so a host without apt needs one that was built elsewhere (BELLJAR_GUEST).",
      ].join("\n"),
    };
  }
  const packages = needed.filter(({ name }) => !facts.installed.has(name)).map(({ name }) => name);
  if (packages.length === 0 && facts.hasPackageLists) return { kind: "ready" };
  if (!facts.isRoot) {
    const update = facts.hasPackageLists ? [] : ["  apt-get update"];
    const install = packages.length === 0 ? [] : [`  apt-get install -y --no-install-recommends ${packages.join(" ")}`];
    return {
      kind: "refuse",
      message: [
        packages.length === 0
          ? "apt has no lists of packages, and only root may fetch them."
          : `these Debian packages are missing, and only root may install them: ${packages.join(", ")}.`,
        "Nothing was changed. Run as root:",
        ...update,
        ...install,
      ].join("\n"),
    };
  }
  if (packages.length === 0) return { kind: "update" };
  return { kind: "install", packages, updateFirst: !facts.hasPackageLists };
}
