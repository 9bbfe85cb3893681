/** The agent and all that it imports, as one file for the guest. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { BelljarError, hasErrno, runTool } from "../base/index.ts";

/** The published package has it, beside the agent's code, and no bundler. */
export const AGENT_BUNDLE = "bundle.cjs";

const BUNDLE_TIMEOUT_MS = 60_000;

const BUNDLER_ARGUMENTS = [
  "--bundle",
  "--platform=node",
  // The form that a start-up snapshot can be taken of.
  "--format=cjs",
  "--target=node24",
  // Names are kept: a stack trace from the guest must be readable.
  "--minify-whitespace",
  "--minify-syntax",
  "--legal-comments=none",
  "--log-level=error",
];

/**
 * Bundles with esbuild's program and not through its JavaScript interface, which keeps a process running behind the scenes.
 * @throws BelljarError `GUEST_BUILD_FAILED` with the bundler's complaint
 */
export async function bundleAgent(entryPath: string, signal?: AbortSignal): Promise<Uint8Array> {
  const published = await readFile(join(dirname(entryPath), AGENT_BUNDLE)).catch((error: unknown) => {
    if (!hasErrno(error, "ENOENT")) throw error;
    return undefined;
  });
  if (published !== undefined) return published;
  const program = findBundler();
  // Paths in the bundle are relative to where the bundler runs, so the same sources give the same bytes anywhere.
  const options = { cwd: dirname(dirname(entryPath)), signal, timeoutMs: BUNDLE_TIMEOUT_MS };
  const result = await runTool(program, [entryPath, ...BUNDLER_ARGUMENTS], options).catch((error: unknown) => {
    const cause = BelljarError.from(error);
    if (cause.reason !== "HOST_TOOL_FAILED") throw cause;
    throw new BelljarError("GUEST_BUILD_FAILED", "the agent cannot be bundled", { cause });
  });
  return result.stdout;
}

function findBundler(): string {
  const require = createRequire(import.meta.url);
  try {
    // esbuild's own package, then the one with the program for this host, which is a dependency of it.
    return createRequire(require.resolve("esbuild")).resolve(
      `@esbuild/${process.platform}-${process.arch}/bin/esbuild`,
    );
  } catch (error) {
    // Only building needs the bundler: a published package without it can still run what was built.
    throw new BelljarError("GUEST_BUILD_FAILED", "the npm package esbuild is not installed; it bundles the agent", {
      remedy: "Run `npm install` in a clone.",
      cause: error,
    });
  }
}
