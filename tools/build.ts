/** `npm run build`: the package as it is published: JavaScript, declarations, generated code, and the agent in one file. */
import { cp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AGENT_BUNDLE, bundleAgent } from "../src/guest/agent-bundle.ts";
import { BUILDER_DIGEST_FILE, builderDigest } from "../src/guest/build-inputs.ts";
import { packageProgram, repository, runCommand } from "./command.ts";

export async function build(): Promise<number> {
  const dist = join(repository, "dist");
  await rm(dist, { recursive: true, force: true });
  const compiled = await runCommand(packageProgram("tsc"), ["-p", "tsconfig.build.json"]);
  if (compiled.status !== 0) return compiled.status;
  await cp(join(repository, "src/protocol/generated"), join(dist, "src/protocol/generated"), { recursive: true });
  // Both from the sources, so that package and clone have the same guest image.
  await writeFile(join(dist, "src/guest", BUILDER_DIGEST_FILE), await builderDigest());
  await writeFile(join(dist, "agent", AGENT_BUNDLE), await bundleAgent(join(repository, "agent/main.ts")));
  return 0;
}
