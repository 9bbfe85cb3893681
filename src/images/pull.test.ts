import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test as plainTest } from "node:test";
import { type TestScope, test } from "../../test/support/harness.ts";
import { startRegistry } from "../../test/support/registry.ts";
import { BelljarError, runTool, silentLog } from "../base/index.ts";
import { openImageStore } from "./image-store.ts";
import { mounted } from "./layer-fixture.ts";
import { lastWords } from "./pull.ts";

/** An image of two layers, the second with a whiteout, made and pushed by other tools. */
async function pushImage(t: TestScope, address: string): Promise<string> {
  const script = `
    set -e
    umoci init --layout layout && umoci new --image layout:v1
    umoci unpack --image layout:v1 one && mkdir -p one/rootfs/etc one/rootfs/bin
    echo gone > one/rootfs/etc/gone; echo kept > one/rootfs/etc/kept
    umoci repack --image layout:v1 one
    umoci unpack --image layout:v1 two && rm two/rootfs/etc/gone && echo new > two/rootfs/etc/new
    umoci repack --image layout:v1 two
    umoci config --image layout:v1 --config.cmd /bin/sh --config.env LANG=C.UTF-8
    skopeo copy --quiet --dest-tls-verify=false oci:layout:v1 docker://${address}/team/app:v1
    skopeo inspect --raw --tls-verify=false docker://${address}/team/app:v1 | sha256sum | cut -d' ' -f1 > digest`;
  await runTool("sh", ["-c", script], { cwd: t.dir });
  const { stdout } = await runTool("cat", [join(t.dir, "digest")]);
  return `sha256:${stdout.toString().trim()}`;
}

test("an image is pulled from a registry by tag and by digest, with the registry's digest", async (t) => {
  const { address } = await startRegistry(t);
  const digest = await pushImage(t, address);
  const store = await openImageStore({ dir: join(t.dir, "images"), log: silentLog });
  const info = await store.pull(`${address}/team/app:v1`, { plainHttp: true });
  assert.equal(info.digest, digest);
  assert.equal(info.name, `${address}/team/app:v1`);
  const image = await store.resolve(`${address}/team/app:v1@${digest}`);
  assert.deepEqual(image.config.cmd, ["/bin/sh"]);
  assert.deepEqual(image.config.env, ["LANG=C.UTF-8"]);
  const [, second] = image.layers;
  await mounted(second?.path ?? "", t.dir, async (root) => {
    const listed = await runTool("find", [root, "-printf", "%P %y\n"]);
    const lines = listed.stdout.toString().split("\n");
    assert.ok(
      lines.includes("etc/gone c") && lines.includes("etc/new f") && !lines.includes("etc/kept f"),
      lines.join(", "),
    );
  });
  const byDigest = await store.pull(`${address}/team/app@${digest}`, { plainHttp: true, name: "pinned" });
  assert.equal(byDigest.name, "pinned:latest");
  assert.equal(byDigest.digest, digest);
});

test("a failed pull says why in one line and leaves nothing", async (t) => {
  const { address } = await startRegistry(t);
  const store = await openImageStore({ dir: join(t.dir, "images"), log: silentLog });
  const failed = async (
    reference: string,
    options: { plainHttp?: boolean; authFile?: string },
    says: RegExp,
  ): Promise<void> => {
    await assert.rejects(store.pull(reference, options), (error) => {
      assert.ok(error instanceof BelljarError);
      assert.equal(error.reason, "IMAGE_PULL_FAILED");
      assert.match(error.message, says);
      assert.ok(!/\n|level=|time=/.test(error.message), error.message);
      return true;
    });
  };
  await failed(`${address}/no/such:v1`, { plainHttp: true }, /manifest unknown/);
  await failed(`${address}/no/such:v1`, {}, /HTTP response to HTTPS client/);
  const missing = join(t.dir, "auth.json");
  await writeFile(missing, "not json");
  await failed(`${address}/no/such:v1`, { plainHttp: true, authFile: missing }, /auth.json/);
  const left = await runTool("find", [join(t.dir, "images/staging"), "-mindepth", "1"]);
  assert.equal(left.stdout.toString(), "");
});

test("a pull from a registry that does not answer is cancelled", async (t) => {
  // Accepts connections and says nothing.
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const bound = server.address();
  const port = typeof bound === "object" ? (bound?.port ?? 0) : 0;
  const store = await openImageStore({ dir: join(t.dir, "images"), log: silentLog });
  const controller = new AbortController();
  server.on("connection", () => controller.abort());
  const pulling = store.pull(`127.0.0.1:${port}/a:b`, { plainHttp: true, signal: controller.signal });
  await assert.rejects(pulling, (error) => error instanceof BelljarError && error.reason === "CANCELLED");
});

plainTest("skopeo's last line is made readable", () => {
  const line =
    'time="2026-01-02T03:04:05Z" level=fatal msg="Error parsing image name \\"docker://x\\": reading manifest"';
  assert.equal(lastWords(line), 'Error parsing image name "docker://x": reading manifest');
  assert.equal(lastWords("plain\u001b[31m words"), "plain [31m words");
});
