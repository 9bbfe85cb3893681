/**
 * An image made by other tools (mmdebstrap, tar, umoci) out of Debian packages, with several layers and whiteouts and Python
 * in it, pushed to a real registry on loopback, pulled from there and run.
 */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import { runCli, tempDir, test } from "../support/harness.ts";
import { startRegistry } from "../support/registry.ts";

const SCRIPT = `import hashlib, os, sys
with open("/srv/input.txt") as f: text = f.read()
os.makedirs("/srv/out", exist_ok=True)
with open("/srv/out/digest.txt", "w") as f: f.write(hashlib.sha256(text.encode()).hexdigest())
print(open("/srv/out/digest.txt").read())
print(sorted(os.listdir("/srv")), sorted(os.listdir("/opt/opaque")), os.path.exists("/srv/secret.txt"))
print(sys.version_info >= (3, 9), os.stat("/srv/owned.txt").st_uid, oct(os.stat("/srv/owned.txt").st_mode))
`;

test("an image with layers and whiteouts from a real registry runs a Python script", async (t) => {
  const dir = await tempDir(t);
  const layout = join(dir, "layout");
  await runTool("umoci", ["init", "--layout", layout]);
  await runTool("umoci", ["new", "--image", `${layout}:app`]);
  for (const layer of [await debianLayer(dir), await applicationLayer(dir), await whiteoutLayer(dir)]) {
    await runTool("umoci", ["raw", "add-layer", "--image", `${layout}:app`, layer]);
  }
  await runTool("umoci", [
    ...["config", "--image", `${layout}:app`],
    ...["--config.cmd", "python3", "--config.cmd", "/srv/app.py", "--config.workingdir", "/srv"],
  ]);

  const registry = await startRegistry(t);
  const reference = `${registry.address}/team/app:1`;
  await runTool("skopeo", ["copy", "--dest-tls-verify=false", `oci:${layout}:app`, `docker://${reference}`]);

  const refused = await runCli(t, ["image", "pull", reference]);
  assert.equal(refused.status, 125, "plain HTTP is for those who ask for it");
  const pulled = await runCli(t, ["image", "pull", "--plain-http", reference]);
  assert.equal(pulled.status, 0, pulled.stderr);

  const { status, stdout, stderr } = await runCli(t, ["run", "--rm", reference]);
  assert.equal(status, 0, stderr);
  assert.deepEqual(stdout.toString().trim().split("\n"), [
    "66a045b452102c59d840ec097d59d9467e13a3f34f6494e539ffd32c1bb35f18",
    "['app.py', 'input.txt', 'out', 'owned.txt'] ['new.txt'] False",
    "True 1234 0o104640",
  ]);

  const removed = await runCli(t, ["image", "rm", reference]);
  assert.equal(removed.status, 0, removed.stderr);
  assert.equal((await runCli(t, ["run", reference])).status, 125);
});

/** A small Debian with Python, unpacked from its packages. */
async function debianLayer(dir: string): Promise<string> {
  const release = await readFile("/etc/os-release", "utf8");
  const suite = /^VERSION_CODENAME=(\w+)/m.exec(release)?.[1] ?? "bookworm";
  const tar = join(dir, "debian.tar");
  const args = ["--variant=extract", "--mode=root", "--include=python3-minimal,busybox", suite, tar];
  await runTool("mmdebstrap", args, { timeoutMs: 300_000 });
  return tar;
}

async function applicationLayer(dir: string): Promise<string> {
  const root = join(dir, "application");
  await mkdir(join(root, "srv"), { recursive: true });
  await mkdir(join(root, "opt/opaque"), { recursive: true });
  await writeFile(join(root, "srv/app.py"), SCRIPT);
  await writeFile(join(root, "srv/input.txt"), "Hello\n");
  await writeFile(join(root, "srv/secret.txt"), "removed by the next layer\n");
  await writeFile(join(root, "srv/owned.txt"), "x", { mode: 0o640 });
  await runTool("chown", ["1234:1234", join(root, "srv/owned.txt")]);
  await runTool("chmod", ["4640", join(root, "srv/owned.txt")]);
  await writeFile(join(root, "opt/opaque/old.txt"), "hidden by the next layer\n");
  return await pack(root, join(dir, "application.tar"));
}

async function whiteoutLayer(dir: string): Promise<string> {
  const root = join(dir, "whiteouts");
  await mkdir(join(root, "srv"), { recursive: true });
  await mkdir(join(root, "opt/opaque"), { recursive: true });
  await writeFile(join(root, "srv/.wh.secret.txt"), "");
  await writeFile(join(root, "opt/opaque/.wh..wh..opq"), "");
  await writeFile(join(root, "opt/opaque/new.txt"), "");
  return await pack(root, join(dir, "whiteouts.tar"));
}

async function pack(root: string, tar: string): Promise<string> {
  await runTool("tar", ["-C", root, "--numeric-owner", "-cf", tar, "."]);
  return tar;
}
