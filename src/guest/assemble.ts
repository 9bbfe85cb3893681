/** Follows the recipe: from unpacked packages, Node and the agent to the files of a guest image. */
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, throwIfAborted } from "../base/index.ts";
import { canonicalJson } from "../store/index.ts";
import { AGENT_BUNDLE, snapshotAgent } from "./agent-snapshot.ts";
import { cpioArchive } from "./cpio.ts";
import { withoutSymbols } from "./elf.ts";
import { writeDirectory, writeErofs } from "./erofs.ts";
import { FileTree } from "./file-tree.ts";
import { writeKernel } from "./kernel-file.ts";
import { type KernelModule, moduleClosure, modulesDep, unpackedModules } from "./kernel-modules.ts";
import { GUEST_FILES } from "./manifest.ts";
import { loadableModule } from "./module-file.ts";
import { compileProgram } from "./programs.ts";
import type { BuiltinContents, PackagedFile, Recipe } from "./recipe.ts";
import { addSharedLibraries } from "./shared-libraries.ts";
import { writeCompressedTar } from "./tar.ts";

/** The package with the compiler of the guest's own programs. */
const COMPILER = "tcc";
/** Of guest-image/programs; in the guest each is `belljar-` and its name. */
const PROGRAMS = ["init", "wake", "host-wait", "prepared"];

export interface AssemblyInputs {
  readonly recipe: Recipe;
  /** Where each package was unpacked. */
  readonly packageDirs: ReadonlyMap<string, string>;
  readonly kernelDir: string;
  readonly nodePath: string;
  readonly nodeVersion: string;
  readonly agent: Uint8Array;
}

export interface AssemblyOptions {
  readonly signal?: AbortSignal | undefined;
  readonly progress: (step: string) => void;
}

/** Writes every file of `GUEST_FILES` into `directory`; answers the kernel's release. */
export async function assemble(inputs: AssemblyInputs, directory: string, options: AssemblyOptions): Promise<string> {
  const { recipe } = inputs;
  const step = (what: string): void => {
    throwIfAborted(options.signal);
    options.progress(what);
  };
  step("kernel and initramfs");
  const release = await kernelRelease(inputs.kernelDir);
  const kernel = join(directory, GUEST_FILES.kernel);
  await writeKernel(join(inputs.kernelDir, "boot", `vmlinuz-${release}`), kernel, options.signal);
  await writeFile(join(directory, GUEST_FILES.initrd), cpioArchive(await initramfsTree(inputs, release)));

  step("root file system");
  const node = withoutSymbols(await readFile(inputs.nodePath), "node");
  const staging = join(directory, "staging");
  const programs = new Map<string, Buffer>();
  for (const name of PROGRAMS) programs.set(name, await compiled(inputs, name, directory, options.signal));
  await writeDirectory(await rootTree(inputs, node, programs, release), staging);
  await snapshotAgent(staging, options.signal);
  await writeErofs(staging, join(directory, GUEST_FILES.root), options.signal);
  await rm(staging, { recursive: true });

  step("built-in images busybox and node");
  await writeCompressedTar(await builtinTree(inputs, recipe.busybox), join(directory, GUEST_FILES.busybox));
  await writeCompressedTar(await nodeTree(inputs, node), join(directory, GUEST_FILES.node));
  await writeFile(join(directory, GUEST_FILES.builtin), `${canonicalJson(builtinImages(inputs), "builtin")}\n`);
  return release;
}

async function kernelRelease(kernelDir: string): Promise<string> {
  const releases = await readdir(join(kernelDir, "lib/modules"));
  const release = releases[0];
  if (release === undefined || releases.length !== 1) {
    throw new BelljarError("GUEST_BUILD_FAILED", `the kernel's package has ${releases.length} kernels, not one`);
  }
  return release;
}

async function initramfsTree(inputs: AssemblyInputs, release: string): Promise<FileTree> {
  const { recipe, kernelDir } = inputs;
  const tree = new FileTree();
  for (const path of ["dev", "proc", "sys", "root"]) tree.directory(path);
  tree.file("init", await readFile(join(recipe.directory, "initramfs/init")), 0o755);
  tree.file("etc/fstab", await readFile(join(recipe.directory, "initramfs/etc/fstab")));
  await addPackaged(tree, recipe.initramfs.files, inputs);
  addApplets(tree, recipe.initramfs.applets);
  const modules = await moduleClosure(recipe.modules, await unpackedModules(join(kernelDir, "lib/modules", release)));
  addModules(tree, modules, release);
  const names = modules.map((module) => module.name);
  return tree.file("modules", `${recipe.modules.filter((name) => names.includes(name)).join(" ")}\n`);
}

/** Those that the initramfs has are loaded by then. */
async function modulesOnDemand({ recipe, kernelDir }: AssemblyInputs, release: string): Promise<KernelModule[]> {
  const source = await unpackedModules(join(kernelDir, "lib/modules", release));
  const atBoot = new Set((await moduleClosure(recipe.modules, source)).map(({ name }) => name));
  const modules = await moduleClosure(recipe.modulesOnDemand, source);
  return modules
    .filter(({ name }) => !atBoot.has(name))
    .map((module) => ({ ...module, needs: module.needs.filter((name) => !atBoot.has(name)) }));
}

function addModules(tree: FileTree, modules: readonly KernelModule[], release: string): void {
  for (const module of modules) {
    const file = `${module.name}.ko`;
    tree.file(`lib/modules/${release}/${file}`, loadableModule(module.data, file));
  }
  tree.file(`lib/modules/${release}/modules.dep`, modulesDep(modules));
}

async function rootTree(
  inputs: AssemblyInputs,
  node: Buffer,
  programs: ReadonlyMap<string, Buffer>,
  release: string,
): Promise<FileTree> {
  const tree = new FileTree();
  for (const path of ["dev", "proc", "sys", "run", "tmp", "var"]) tree.directory(path);
  addUsualLinks(tree);
  await tree.addFrom(join(inputs.recipe.directory, "root"));
  await addPackaged(tree, inputs.recipe.root.files, inputs);
  addApplets(tree, inputs.recipe.root.applets);
  tree.file("bin/node", node, 0o755).file(AGENT_BUNDLE, inputs.agent);
  for (const [name, program] of programs) tree.file(`bin/belljar-${name}`, program, 0o755);
  tree.symlink("etc/resolv.conf", "../run/resolv.conf").symlink("etc/mtab", "../proc/self/mounts");
  addModules(tree, await modulesOnDemand(inputs, release), release);
  await addSharedLibraries(tree, inputs.packageDirs, inputs.recipe.architecture);
  return tree;
}

async function compiled(
  { recipe, packageDirs }: AssemblyInputs,
  name: string,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const compilerDir = packageDirs.get(COMPILER);
  if (compilerDir === undefined) {
    throw new BelljarError("GUEST_BUILD_FAILED", `the recipe compiles programs and does not fetch ${COMPILER}`);
  }
  const output = join(directory, name);
  await compileProgram(compilerDir, join(recipe.directory, "programs", `${name}.c`), output, signal);
  const program = await readFile(output);
  await rm(output);
  return program;
}

async function nodeTree(inputs: AssemblyInputs, node: Buffer): Promise<FileTree> {
  const tree = await builtinTree(inputs, inputs.recipe.node);
  tree.file("bin/node", node, 0o755);
  const ours = (name: string): Promise<Buffer> => readFile(join(inputs.recipe.directory, name));
  tree.file("bin/node-entrypoint", await ours("node-entrypoint"), 0o755);
  tree.file("etc/ssl/node.cnf", await ours("node-openssl.cnf"), 0o644);
  await addSharedLibraries(tree, inputs.packageDirs, inputs.recipe.architecture);
  return tree;
}

/** What both built-in images have: the usual directories, accounts, and all of busybox's commands. */
async function builtinTree(inputs: AssemblyInputs, contents: BuiltinContents): Promise<FileTree> {
  const tree = new FileTree();
  for (const path of ["dev", "proc", "sys", "run", "home", "mnt", "opt", "srv", "var/log", "var/spool"])
    tree.directory(path);
  tree.directory("root", 0o700).directory("tmp", 0o1777).directory("var/tmp", 0o1777);
  addUsualLinks(tree);
  tree.symlink("var/run", "../run");
  await tree.addFrom(join(inputs.recipe.directory, "builtin"));
  await addPackaged(tree, contents.files, inputs);
  addApplets(tree, contents.applets);
  return tree;
}

/** Programs lie in /bin whatever path asks for them. */
function addUsualLinks(tree: FileTree): void {
  tree.directory("bin").directory("lib").directory("usr");
  tree.symlink("sbin", "bin");
  for (const [name, target] of [
    ["bin", "../bin"],
    ["sbin", "../bin"],
    ["lib", "../lib"],
  ] as const) {
    tree.symlink(`usr/${name}`, target);
  }
}

async function addPackaged(tree: FileTree, files: readonly PackagedFile[], inputs: AssemblyInputs): Promise<void> {
  for (const file of files) {
    const directory = inputs.packageDirs.get(file.package);
    if (directory === undefined) {
      throw new BelljarError(
        "GUEST_BUILD_FAILED",
        `the recipe takes ${file.from} from ${file.package}, which it does not fetch`,
      );
    }
    tree.file(file.to, await readFile(join(directory, file.from)), 0o755);
  }
}

function addApplets(tree: FileTree, applets: readonly string[]): void {
  for (const applet of applets) if (tree.get(`bin/${applet}`) === undefined) tree.symlink(`bin/${applet}`, "busybox");
}

/** How the images are run, in the words of the OCI image configuration. */
function builtinImages({ recipe, nodeVersion }: AssemblyInputs): Readonly<Record<string, unknown>> {
  const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  const common = { architecture: recipe.architecture.ociArchitecture, os: "linux" };
  return {
    busybox: { ...common, layer: GUEST_FILES.busybox, config: { Cmd: recipe.busybox.command, Env: [path] } },
    node: {
      ...common,
      layer: GUEST_FILES.node,
      config: {
        Entrypoint: ["node-entrypoint"],
        Cmd: recipe.node.command,
        Env: [path, `NODE_VERSION=${nodeVersion}`],
      },
    },
  };
}
