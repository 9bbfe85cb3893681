/** Makes an executable file of `test/programs/fake-qemu.ts` in one of its modes. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

export async function fakeQemu(dir: string, mode: string): Promise<string> {
  const path = join(dir, `qemu-${mode}`);
  const program = join(import.meta.dirname, "../programs/fake-qemu.ts");
  await writeFile(path, `#!/bin/sh\nexec '${process.execPath}' --no-warnings '${program}' '${mode}' "$@"\n`, {
    mode: 0o755,
  });
  return path;
}
