/** A small tmpfs for one test: a disk that can be filled. */
import { runTool } from "../../src/base/index.ts";
import { type TestScope, tempDir } from "./harness.ts";

export async function mountTmpfs(t: TestScope, sizeMib: number): Promise<string> {
  const dir = await tempDir(t);
  await runTool("mount", ["-t", "tmpfs", "-o", `size=${sizeMib}m`, "belljar-test", dir]);
  t.after(() => runTool("umount", [dir]));
  return dir;
}
