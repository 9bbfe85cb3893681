/** `npm run build`: the package as it is published: JavaScript, declarations, generated code. */
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { packageProgram, repository, runCommand } from "./command.ts";

export async function build(): Promise<number> {
  const dist = join(repository, "dist");
  await rm(dist, { recursive: true, force: true });
  const compiled = await runCommand(packageProgram("tsc"), ["-p", "tsconfig.build.json"]);
  if (compiled.status !== 0) return compiled.status;
  await cp(join(repository, "src/protocol/generated"), join(dist, "src/protocol/generated"), { recursive: true });
  return 0;
}
