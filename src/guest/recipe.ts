/** Reads the recipe in guest-image/: data, decoded field by field, and one digest over every file of it. */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, type Field, parseJson } from "../base/index.ts";

export interface ArchitectureFacts {
  readonly name: string;
  readonly debianArchitecture: string;
  /** A package without content of its own, whose first dependency is the kernel. */
  readonly kernelPackage: string;
  /** npm package with Node's binary. */
  readonly nodePackage: string;
  readonly dynamicLoader: string;
  readonly libraryDirectory: string;
  readonly ociArchitecture: string;
}

export interface PackagedFile {
  readonly package: string;
  readonly from: string;
  readonly to: string;
}

export interface TreeContents {
  readonly files: readonly PackagedFile[];
  readonly applets: readonly string[];
}

export interface BuiltinContents extends TreeContents {
  readonly command: readonly string[];
}

export interface Recipe {
  readonly directory: string;
  readonly digest: string;
  readonly architecture: ArchitectureFacts;
  readonly packages: readonly string[];
  /** In the initramfs, loaded before the agent starts. */
  readonly modules: readonly string[];
  /** In the root, loaded by the agent when something needs them. */
  readonly modulesOnDemand: readonly string[];
  readonly kernelArguments: readonly string[];
  readonly initramfs: TreeContents;
  readonly root: TreeContents;
  readonly busybox: BuiltinContents;
  readonly node: BuiltinContents;
}

/** @throws BelljarError `UNSUPPORTED_HOST` for an architecture that the table does not have, `GUEST_BUILD_FAILED` */
export async function readRecipe(directory: string, architectureName: string = process.arch): Promise<Recipe> {
  const read = async (name: string): Promise<Field> =>
    parseJson(await readFile(join(directory, name), "utf8"), name, "GUEST_BUILD_FAILED");
  const architectures = await read("architectures.json");
  const row = architectures.field(architectureName);
  if (row.isAbsent) {
    throw new BelljarError("UNSUPPORTED_HOST", `no guest image can be built for the architecture ${architectureName}`, {
      facts: { architecture: architectureName },
    });
  }
  const contents = await read("contents.json");
  const kernelArguments = await read("kernel-arguments.json");
  const modules = (await read("modules.json")).array(decodeModule);
  return {
    directory,
    digest: await digestOfFiles(directory),
    architecture: decodeArchitecture(row, architectureName),
    packages: (await read("packages.json")).array((field) => field.field("name").string()),
    modules: modules.filter(({ onDemand }) => !onDemand).map(({ name }) => name),
    modulesOnDemand: modules.filter(({ onDemand }) => onDemand).map(({ name }) => name),
    kernelArguments: [...row.field("kernelArguments").array(decodeArgument), ...kernelArguments.array(decodeArgument)],
    initramfs: decodeTree(contents.field("initramfs")),
    root: decodeTree(contents.field("root")),
    busybox: decodeBuiltin(contents.field("busybox")),
    node: decodeBuiltin(contents.field("node")),
  };
}

function decodeArchitecture(field: Field, name: string): ArchitectureFacts {
  return {
    name,
    debianArchitecture: field.field("debianArchitecture").string(),
    kernelPackage: field.field("kernelPackage").string(),
    nodePackage: field.field("nodePackage").string(),
    dynamicLoader: field.field("dynamicLoader").string(),
    libraryDirectory: field.field("libraryDirectory").string(),
    ociArchitecture: field.field("ociArchitecture").string(),
  };
}

function decodeModule(field: Field): { readonly name: string; readonly onDemand: boolean } {
  const loaded = field.field("loaded").optional((when) => when.oneOf(["at boot", "on demand"]));
  return { name: field.field("name").string(), onDemand: loaded === "on demand" };
}

function decodeArgument(field: Field): string {
  return field.field("argument").string({ pattern: /^[!-~]+$/ });
}

function decodeTree(field: Field): TreeContents {
  return {
    files: field.field("files").array(decodeFile),
    applets: field.field("applets").array((applet) => applet.string()),
  };
}

function decodeBuiltin(field: Field): BuiltinContents {
  return { ...decodeTree(field), command: field.field("command").array((word) => word.string()) };
}

function decodeFile(field: Field): PackagedFile {
  return {
    package: field.field("package").string(),
    from: field.field("from").string(),
    to: field.field("to").string(),
  };
}

/** One digest over names and contents of all files below a directory that `accepts` says count. */
export async function digestOfFiles(
  directory: string,
  accepts: (name: string) => boolean = () => true,
): Promise<string> {
  const items = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = items
    .filter((item) => item.isFile() && accepts(item.name))
    .map((item) => join(item.parentPath, item.name));
  const hash = createHash("sha256");
  for (const path of paths.sort()) {
    const data = await readFile(path);
    hash.update(`${path.slice(directory.length)}\0${data.length}\0`).update(data);
  }
  return hash.digest("hex");
}
