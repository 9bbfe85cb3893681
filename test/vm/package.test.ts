/** The package as it is published: packed, installed into an empty project, typed, imported and called. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { parseJson, runTool } from "../../src/base/index.ts";
import { cliEnvironment, tempDir, test } from "../support/harness.ts";

const repository = join(import.meta.dirname, "../..");

/** All that npm installs with Belljar, Belljar itself not counted. */
const PACKAGES_NEEDED = 20;

const PROGRAM = `import { BelljarError, resolvePaths, Runtime, type SandboxInfo } from "belljar";

const named = (info: SandboxInfo): string => info.name;
await using runtime = await Runtime.connect({ paths: resolvePaths({}, process.env, process.getuid?.() ?? 0) });
await using sandbox = await runtime.sandboxes.create({ image: "busybox", name: "packed" });
const { exitCode, stdout } = await sandbox.exec(["sh", "-c", "echo $((6 * 7))"]);
const reason = await runtime.sandboxes.get("none").then(
  () => "found",
  (error: unknown) => (error instanceof BelljarError ? error.reason : "unknown"),
);
process.stdout.write(JSON.stringify({ exitCode, stdout, name: named(await sandbox.info()), reason }));
`;

/** Without the DOM's types, and with those of libraries checked too. */
const TSCONFIG = {
  compilerOptions: {
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    target: "es2024",
    lib: ["es2024", "esnext.disposable"],
    module: "nodenext",
    noEmit: true,
    types: ["node"],
    typeRoots: [join(repository, "node_modules/@types")],
  },
  files: ["program.ts"],
};

test("the published package installs into an empty project, is typed, runs, and has the clone's guest image", async (t) => {
  const app = await tempDir(t);
  const npmrc = join(app, ".npmrc");
  await writeFile(npmrc, "");
  // npm's own Node comes first everywhere, as for a user who has a current one.
  const path = [dirname(process.execPath), process.env["PATH"] ?? ""].join(delimiter);
  const npm = { npm_config_cache: join(app, "cache"), npm_config_userconfig: npmrc, NODE_DISABLE_COMPILE_CACHE: "1" };
  const env = { ...cliEnvironment(t), ...npm, PATH: path };
  const run = async (program: string, args: readonly string[], cwd = app): Promise<string> =>
    (await runTool(program, [...args], { cwd, env, timeoutMs: 120_000 })).stdout.toString();

  const packed = parseJson(
    await run("npm", ["pack", "--json", "--pack-destination", app], repository),
    "npm",
    "INTERNAL",
  );
  t.after(() => rm(join(repository, "dist"), { recursive: true, force: true }));
  const [tarball = ""] = packed.array((each) => each.field("filename").string());
  await writeFile(join(app, "package.json"), JSON.stringify(await manifest(tarball)));
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund"]);
  await writeFile(join(app, "program.ts"), PROGRAM);
  await writeFile(join(app, "tsconfig.json"), JSON.stringify(TSCONFIG));

  await run(process.execPath, [join(repository, "node_modules/.bin/tsc"), "-p", "."]);
  assert.match(await run("npx", ["--offline", "belljar", "version"]), /^belljar \d+\.\d+\.\d+\n/);
  // The same inputs: nothing is built, and what the clone has built is used.
  const shown = await run("npx", ["--offline", "belljar", "guest", "ls", "--json"]);
  const current = shown.split("\n").find((line) => line.includes('"current":true')) ?? "";
  const built = (await run("npx", ["--offline", "belljar", "guest", "build"])).trim();
  assert.ok(current.includes(built), `the package would build ${built}; there is ${current}`);
  assert.deepEqual(JSON.parse(await run(process.execPath, ["program.ts"])), {
    exitCode: 0,
    stdout: "42\n",
    name: "packed",
    reason: "SANDBOX_NOT_FOUND",
  });
});

/** Every package that ours needs is taken from the clone, so that no registry is asked. */
async function manifest(tarball: string): Promise<unknown> {
  const lock = parseJson(
    await readFile(join(repository, "package-lock.json"), "utf8"),
    "package-lock.json",
    "INTERNAL",
  );
  const isNeeded = lock.field("packages").map((each) => each.field("dev").isAbsent);
  const needed = Object.keys(isNeeded).filter((place) => isNeeded[place] && place.startsWith("node_modules/"));
  // Of those that are for one kind of machine each, npm has installed this one's.
  const places = needed.filter((place) => existsSync(join(repository, place)));
  const taken = places.map((place) => [place.slice("node_modules/".length), `file:${join(repository, place)}`]);
  assert.equal(taken.length, PACKAGES_NEEDED, "the tree of dependencies has another size than SPEC.md says");
  return {
    name: "app",
    private: true,
    type: "module",
    dependencies: { belljar: `file:${tarball}` },
    overrides: Object.fromEntries(taken),
  };
}
