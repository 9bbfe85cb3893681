/** Which kernel modules go into the initramfs: those asked for and all that they need, each after what it needs. */
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { BelljarError } from "../base/index.ts";
import { moduleInfo } from "./elf.ts";

export interface KernelModule {
  readonly name: string;
  readonly data: Buffer;
  /** Names of the modules that it needs itself, built-in ones left out. */
  readonly needs: readonly string[];
}

/** What a package of kernel modules offers. */
export interface ModuleSource {
  /** Undefined when there is no such module file. */
  read(name: string): Promise<Buffer | undefined>;
  /** True when the kernel itself has it. */
  isBuiltIn(name: string): boolean;
}

/**
 * The modules in an order in which they can be loaded.
 * @throws BelljarError `GUEST_BUILD_FAILED` when a module neither exists nor is built in, or modules need each other in a ring.
 */
export async function moduleClosure(wanted: readonly string[], source: ModuleSource): Promise<KernelModule[]> {
  const loaded = new Map<string, KernelModule>();
  const visit = async (name: string, path: readonly string[]): Promise<void> => {
    if (loaded.has(name)) return;
    if (path.includes(name)) {
      throw new BelljarError("GUEST_BUILD_FAILED", `kernel modules need each other: ${[...path, name].join(", ")}`);
    }
    const data = await source.read(name);
    if (data === undefined) {
      if (source.isBuiltIn(name)) return;
      const by = path.at(-1);
      throw new BelljarError(
        "GUEST_BUILD_FAILED",
        `the kernel's package has no module ${name}${by === undefined ? "" : `, which ${by} needs`}`,
        { facts: { module: name } },
      );
    }
    const needs = neededBy(name, data);
    for (const needed of needs) await visit(needed, [...path, name]);
    loaded.set(name, { name, data, needs: needs.filter((needed) => loaded.has(needed)) });
  };
  for (const name of wanted) await visit(name, []);
  return [...loaded.values()];
}

/**
 * The list that modprobe reads: each module with all that it needs, directly or not, in the reverse order of loading.
 * @param modules in an order in which they can be loaded
 */
export function modulesDep(modules: readonly KernelModule[]): string {
  const order = modules.map((module) => module.name);
  const all = new Map<string, ReadonlySet<string>>();
  for (const { name, needs } of modules) {
    all.set(name, new Set(needs.flatMap((needed) => [needed, ...(all.get(needed) ?? [])])));
  }
  const lines = modules.map(({ name }) => {
    const needed = order.filter((other) => all.get(name)?.has(other)).reverse();
    return `${[`${name}.ko:`, ...needed.map((other) => `${other}.ko`)].join(" ")}\n`;
  });
  return lines.join("");
}

/** Names that a module's description gives as hard dependencies. */
function neededBy(name: string, data: Buffer): string[] {
  return moduleInfo(data, `${name}.ko`)
    .filter(([key]) => key === "depends")
    .flatMap(([, value]) => value.split(","))
    .filter((needed) => needed !== "")
    .map(canonicalName);
}

/** Files may have dashes where module names have underscores. */
function canonicalName(name: string): string {
  return name.replaceAll("-", "_");
}

/** Modules of an unpacked kernel package; `directory` is its lib/modules/RELEASE. */
export async function unpackedModules(directory: string): Promise<ModuleSource> {
  const files = new Map<string, string>();
  for (const item of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (item.isFile() && item.name.endsWith(".ko")) {
      files.set(canonicalName(basename(item.name, ".ko")), join(item.parentPath, item.name));
    }
  }
  const builtIn = new Set(
    (await readFile(join(directory, "modules.builtin"), "utf8"))
      .split("\n")
      .map((line) => canonicalName(basename(line, ".ko"))),
  );
  return {
    read: async (name) => {
      const path = files.get(name);
      return path === undefined ? undefined : await readFile(path);
    },
    isBuiltIn: (name) => builtIn.has(name),
  };
}
